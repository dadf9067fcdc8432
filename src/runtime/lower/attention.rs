//! Lowers attention: queries, keys and values become one step of products where they are products, with the work on
//! heads behind it; otherwise their rows are gathered. Layers find their places in the cache's groups.

use super::{Lowering, WHAT};
use crate::error::Result;
use crate::kv::LayerId;
use crate::memory::reserve::{collected, reserve};
use crate::model::graph::{Attention, KeyValues, Norm, Op, RowSet, Scores, Value};
use crate::ops::attention::{HeadShape, alibi_slopes};
use crate::profile::Zone;
use crate::runtime::plan::{Buf, CacheGroup, Turned};
use crate::runtime::steps::attend::Attend;
use crate::runtime::steps::gather::Gather;
use crate::runtime::steps::heads::{HeadOp, HeadWork, HeadsDone};
use crate::runtime::steps::recurrent::{Columns, HeadColumns};

/// The nodes from a value to queries, keys or values: work on heads, and the choice of columns.
struct Chain {
    /// The value at the beginning.
    from: Value,
    /// Their first column in it.
    begin: usize,
    /// Columns of a head and from one to the next, where they stand apart.
    apart: Option<[usize; 2]>,
    work: HeadWork,
}

impl Lowering<'_> {
    /// Attention, and the products for its queries, keys and values.
    pub(super) fn attention(&mut self, value: Value, attention: &Attention) -> Result<()> {
        let Attention { q, kv, heads: shape, mask, scores } = *attention;
        let kv_width = shape.n_head_kv * shape.head_dim;
        let columns = [0, shape.n_head * shape.head_dim, shape.n_head * shape.head_dim + kv_width];
        if u32::try_from(columns[2]).is_err() {
            return self.unsupported(value, "so many columns of queries and keys");
        }
        let (qkv, layer) = match kv {
            KeyValues::Own(k, v) => self.queries_keys_values(value, [q, k, v], attention, columns)?,
            KeyValues::Of(earlier) => self.queries(value, q, earlier, shape)?,
        };
        self.layers[value.index()] = Some(layer);
        let out = self.float_buffer(RowSet::Batch, columns[1])?;
        let mask = number_of(&mut self.plan.masks, mask);
        number_of(&mut self.plan.heads, shape);
        let Scores { scale, soft_cap, alibi, sinks } = scores;
        let slopes = alibi.map(|max_bias| collected(alibi_slopes(shape.n_head, max_bias).map(Ok), WHAT));
        let slopes = slopes.transpose()?;
        self.push(value, Attend { qkv, out, shape, layer, mask, scale, soft_cap, slopes, sinks })?;
        self.made(value, out);
        Ok(())
    }

    /// Queries, keys and values side by side, and the layer of the cache in which keys and values are stored.
    fn queries_keys_values(
        &mut self,
        value: Value,
        qkv: [Value; 3],
        attention: &Attention,
        columns: [usize; 3],
    ) -> Result<(Buf, LayerId)> {
        let [q, k, v] = qkv;
        let turned = self.turned(k, attention.heads);
        let chains = [self.chain(q, value)?, self.chain(k, value)?, self.chain(v, value)?];
        let sources = chains.each_ref().map(|chain| (chain.from, chain.begin));
        let apart = chains.each_ref().map(|chain| chain.apart);
        let [q, k, v] = chains.map(|chain| chain.work);
        let (shape, layer) = (attention.heads, self.cache_layer(attention));
        reserve(&mut self.plan.keys, 1, WHAT)?;
        self.plan.keys.push((layer, turned));
        let heads = HeadsDone { shape, alike: q == k, work: [q, k, v], layer, stores: true };
        if let Some(count) = self.products(&sources, columns, value)
            && apart == [None; 3]
        {
            return Ok((self.qkv_products(value, &sources[..count], columns, heads)?, layer));
        }
        let from = [self.floats(sources[0].0)?, self.floats(sources[1].0)?, self.floats(sources[2].0)?];
        let from = [0, 1, 2].map(|i| {
            let first = Columns { buf: from[i], begin: sources[i].1 };
            let width = if i == 0 { columns[1] } else { columns[2] - columns[1] };
            let [width, every] = apart[i].unwrap_or([width; 2]);
            HeadColumns { first, width, every }
        });
        let out = self.float_buffer(RowSet::Batch, columns[2] + shape.n_head_kv * shape.head_dim)?;
        self.push(value, Gather { from, out, heads })?;
        Ok((out, layer))
    }

    /// How keys depend on their positions.
    fn turned(&self, keys: Value, heads: HeadShape) -> Turned {
        match *self.op(keys) {
            Op::Rope(x, head_dim, rope) if head_dim == heads.head_dim && !self.is_placed(x) => {
                Turned::By(rope, self.graph.ropes[rope.0 as usize].config.pairing)
            }
            _ if self.is_placed(keys) => Turned::Otherwise,
            _ => Turned::Never,
        }
    }

    /// Whether a value depends on positions by an operation behind the last product.
    fn is_placed(&self, value: Value) -> bool {
        match self.op(value) {
            Op::Rope(..) | Op::Temper(..) => true,
            Op::Linear(..) | Op::Attention(_) | Op::Experts(_) => false,
            other => other.inputs().any(|input| self.is_placed(input)),
        }
    }

    /// Queries of a layer that reads an earlier layer's keys and values, and that layer of the cache.
    fn queries(
        &mut self,
        value: Value,
        q: Value,
        earlier: Value,
        shape: HeadShape,
    ) -> Result<(Buf, LayerId)> {
        let Some(layer) = self.layers[earlier.index()] else {
            return self.unsupported(value, "keys and values of a layer that stores none");
        };
        let Chain { from, begin, apart, work } = self.chain(q, value)?;
        if apart.is_some() || self.products(&[(from, begin); 3], [0; 3], value) != Some(1) {
            return self.unsupported(value, "queries that are no projection");
        }
        let heads =
            HeadsDone { shape, alike: false, work: [work, Vec::new(), Vec::new()], layer, stores: false };
        let (x, out) = (self.input(from)?, self.float_buffer(RowSet::Batch, shape.n_head * shape.head_dim)?);
        self.linear(value, Zone::LinearQkv, &[(from, x, 0)], out, false, Some(heads))?;
        Ok((out, layer))
    }

    /// The number of products, one or three, if queries, keys and values are the columns of products that nothing else
    /// reads, in their order.
    fn products(
        &self,
        sources: &[(Value, usize); 3],
        columns: [usize; 3],
        attention: Value,
    ) -> Option<usize> {
        let own = |&(from, _): &(Value, usize)| {
            let inside = |&reader: &usize| reader == attention.index() || self.done[reader];
            let is_product = matches!(self.op(from), Op::Linear(..)) && !self.done[from.index()];
            is_product && from != self.result && self.readers[from.index()].iter().all(inside)
        };
        let begins = sources.map(|(_, begin)| begin);
        let one = sources.iter().all(|(from, _)| *from == sources[0].0);
        let (count, wanted) = if one { (1, columns) } else { (3, [0; 3]) };
        (sources.iter().all(own) && begins == wanted).then_some(count)
    }

    /// Queries, keys and values from their products, with the work on heads.
    fn qkv_products(
        &mut self,
        value: Value,
        sources: &[(Value, usize)],
        columns: [usize; 3],
        heads: HeadsDone,
    ) -> Result<Buf> {
        let inputs = collected(sources.iter().map(|(linear, _)| self.input(*linear)), WHAT)?;
        let width = columns[2] + heads.shape.n_head_kv * heads.shape.head_dim;
        let qkv = self.float_buffer(RowSet::Batch, width)?;
        let products = sources.iter().zip(inputs).zip(columns);
        let products: Vec<_> = products.map(|((source, x), column)| (source.0, x, column)).collect();
        self.linear(value, Zone::LinearQkv, &products, qkv, false, Some(heads))?;
        Ok(qkv)
    }

    /// Follows queries, keys or values back through work that is done head by head. The nodes on the way count as done.
    fn chain(&mut self, value: Value, reader: Value) -> Result<Chain> {
        let (mut at, mut reader) = (value, reader);
        let (mut work, mut begin, mut apart) = (HeadWork::new(), 0, None);
        loop {
            let (op, next) = match *self.op(at) {
                _ if !self.only_for(at, reader) => break,
                Op::Rope(x, _, rope) => {
                    let pairing = self.graph.ropes[rope.0 as usize].config.pairing;
                    (Some(HeadOp::Rope(rope, pairing)), x)
                }
                Op::HeadNorm(x, head_dim, Norm::Rms { gain, eps })
                    if self.graph.weights.vector(gain).k == head_dim
                        && self.graph.weights.vector(gain).n == 1 =>
                {
                    (Some(HeadOp::Norm(gain, eps)), x)
                }
                Op::Split(x, column) => {
                    begin = column;
                    (None, x)
                }
                Op::SplitHeads(x, every, column) => {
                    let heads = self.graph.shape(x).width / every;
                    (begin, apart) = (column, Some([self.graph.shape(at).width / heads, every]));
                    (None, x)
                }
                _ => break,
            };
            if let Some(op) = op {
                reserve(&mut work, 1, WHAT)?;
                work.push(op);
            }
            self.done[at.index()] = true;
            (reader, at) = (at, next);
            if matches!(self.op(reader), Op::Split(..) | Op::SplitHeads(..)) {
                break;
            }
        }
        work.reverse();
        Ok(Chain { from: at, begin, apart, work })
    }

    /// The next layer in the cache's group for these heads and this window.
    fn cache_layer(&mut self, attention: &Attention) -> LayerId {
        let (heads, reach) = (&attention.heads, attention.mask.reach());
        let wanted = CacheGroup { layers: 0, n_head_kv: heads.n_head_kv, head_dim: heads.head_dim, reach };
        let groups = &mut self.plan.groups;
        let group = groups.iter().position(|group| CacheGroup { layers: 0, ..*group } == wanted);
        let group = group.unwrap_or_else(|| {
            groups.push(wanted);
            groups.len() - 1
        });
        groups[group].layers += 1;
        LayerId { group, layer: groups[group].layers - 1 }
    }
}

/// The index of an item in a list; a new item is appended.
fn number_of<T: PartialEq>(list: &mut Vec<T>, item: T) -> usize {
    list.iter().position(|known| *known == item).unwrap_or_else(|| {
        list.push(item);
        list.len() - 1
    })
}
