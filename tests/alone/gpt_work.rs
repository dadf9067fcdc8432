//! What the steps of a GPT say that they have done, against a count by hand.

use smallmind::model::{GptConfig, LoadParams, Model};
use smallmind::profile::{self, Snapshot, Zone};
use smallmind::runtime::{Context, ContextParams, Logits, Plan};

/// Operations and bytes of a zone, without those of the scopes inside.
fn own(snapshot: &Snapshot, zone: Zone) -> (u64, u64) {
    let nodes = || snapshot.nodes.iter().enumerate();
    nodes().filter(|(_, node)| node.zone == zone).fold((0, 0), |sum, (i, node)| {
        let inside = || nodes().map(|(_, child)| child).filter(|child| child.parent == Some(i));
        let flops = node.flops - inside().map(|child| child.flops).sum::<u64>();
        (sum.0 + flops, sum.1 + node.bytes - inside().map(|child| child.bytes).sum::<u64>())
    })
}

#[test]
fn steps_declare_what_they_do() {
    let _turn = crate::turn();
    for (config, past, rows) in
        [(GptConfig::SMALL, 0, 34), (GptConfig::SMALL, 20, 1), (GptConfig::MEDIUM, 7, 10)]
    {
        let model = Model::random(&config, 1, &LoadParams::default()).unwrap();
        let params = ContextParams::default().with_n_output(rows).with_threads(1);
        let mut context = Context::new(model, &params).unwrap();
        if past > 0 {
            context.decode(&vec![3; past], Logits::None).unwrap();
        }
        profile::reset();
        profile::set_enabled(true);
        context.decode(&vec![5; rows], Logits::All).unwrap();
        profile::set_enabled(false);
        let snapshot = profile::snapshot();

        let [d, vocab, layers, n] = [config.dim, config.vocab, config.layers, rows].map(|x| x as u64);
        let product = |k: u64, out: u64| 2 * n * k * out;
        // A matrix and its bias, rows in and out, and once more in where they are added to.
        let moved = |k: u64, out: u64, touched: u64| 4 * (k * out + out + n * (k + touched * out));
        let keys: u64 = (0..n).map(|r| past as u64 + r + 1).sum();
        // In a short pass, what follows a product's columns is part of it.
        let short = u64::from(rows <= Plan::FEW_ROWS);
        let (stored, gelu) = (8 * n * 2 * d, 8 * n * 4 * d);
        let mut all = 0;
        for (zone, times, flops, bytes) in [
            (Zone::Embed, 1, n * d, Some(12 * n * d)),
            (Zone::LayerNorm, 2 * layers + 1, 8 * n * d, Some(8 * n * d)),
            (Zone::LinearQkv, layers, product(d, 3 * d), Some(moved(d, 3 * d, 1) + short * stored)),
            (Zone::Attention, layers, 4 * keys * d, None),
            (Zone::LinearAttnOut, layers, product(d, d), Some(moved(d, d, 2))),
            (
                Zone::LinearUp,
                layers,
                product(d, 4 * d) + short * gelu,
                Some(moved(d, 4 * d, 1) + short * gelu),
            ),
            (Zone::KvStore, layers, 0, Some((1 - short) * stored)),
            (Zone::Gelu, layers, (1 - short) * gelu, Some((1 - short) * gelu)),
            (Zone::LinearDown, layers, product(4 * d, d), Some(moved(4 * d, d, 2))),
            (Zone::LinearHead, 1, product(d, vocab), Some(moved(d, vocab, 1) - 4 * vocab)),
        ] {
            let (own_flops, own_bytes) = own(&snapshot, zone);
            assert_eq!(own_flops, times * flops, "{config:?}: {zone:?}");
            if let Some(bytes) = bytes {
                assert_eq!(own_bytes, times * bytes, "{config:?}: {zone:?}");
            }
            all += own_flops;
        }
        let root: u64 = snapshot.nodes.iter().filter(|node| node.depth == 0).map(|node| node.flops).sum();
        assert_eq!(root, all, "{config:?}: nothing else counts");
    }
}
