//! Instructions that each hot kernel takes, counted by valgrind: without noise, so that a slowdown of a few percent
//! shows. A count more than 1 % off the committed table fails. Valgrind has no AVX-512: AVX2 is counted.
//!
//! `cargo bench --bench instructions` compares; `-- --update` rewrites the table; `-- softmax` keeps the kernels
//! whose names hold all of these words; `-- --plant NAME` makes one kernel slower, to see that it's found out;
//! `-- --run` only runs them, for other tools.

mod cases;
mod table;
mod valgrind;

use std::hint::black_box;
use std::path::Path;
use std::process::ExitCode;

use cases::Case;
use table::Table;

/// The committed table.
const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions/table.json");
/// Rounds of a planted slowdown are this share of the call's instructions; each takes some four: 2 %.
const PLANTED_SHARE: u64 = 200;

/// What was typed.
#[derive(Default)]
struct Args {
    run: bool,
    update: bool,
    plant: Option<String>,
    /// Rounds of nothing that the planted kernel makes.
    waste: u64,
    words: Vec<String>,
}

impl Args {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Args, String> {
        let mut parsed = Args::default();
        while let Some(arg) = args.next() {
            let mut value = |what: &str| args.next().ok_or(format!("{arg} needs {what}"));
            match arg.as_str() {
                // What cargo adds by itself.
                "--bench" => {}
                "--run" => parsed.run = true,
                "--update" => parsed.update = true,
                "--plant" => parsed.plant = Some(value("a kernel's name")?),
                "--waste" => parsed.waste = value("a number")?.parse().map_err(|_| "--waste: no number")?,
                option if option.starts_with('-') => return Err(format!("unknown option {option}")),
                _ => parsed.words.push(arg),
            }
        }
        Ok(parsed)
    }

    fn wants(&self, name: &str) -> bool {
        self.words.iter().all(|word| name.contains(word.as_str()))
    }
}

/// What valgrind counts: it is found by its name.
#[unsafe(no_mangle)]
#[inline(never)]
fn smallmind_measured_call(case: &mut Case, waste: u64) {
    (case.run)();
    for i in 0..waste {
        black_box(i);
    }
}

fn main() -> ExitCode {
    let result = Args::parse(std::env::args().skip(1)).and_then(|args| {
        let mut cases = cases::all();
        cases.retain(|case| args.wants(&case.name));
        if args.run {
            run(&mut cases, &args);
            return Ok(());
        }
        let counted = count(&cases, &args)?;
        if args.update { update(counted, &args) } else { compare(&counted, &args) }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// Runs each kernel twice; the second call, when nothing has to be set up any more, counts.
fn run(cases: &mut [Case], args: &Args) {
    for case in cases {
        (case.run)();
        let planted = args.plant.as_ref() == Some(&case.name);
        smallmind_measured_call(case, if planted { args.waste } else { 0 });
    }
}

/// Counts the kernels in a process of their own.
fn count(cases: &[Case], args: &Args) -> Result<Table, String> {
    if cases.is_empty() {
        return Err("no kernel has all of these words in its name".into());
    }
    let program = std::env::current_exe().map_err(|error| format!("where this program lies: {error}"))?;
    let folder = tempfile::tempdir().map_err(|error| format!("a folder for counts: {error}"))?;
    let mut child = vec!["--run".to_owned()];
    child.extend(args.words.iter().cloned());
    if let Some(name) = &args.plant {
        let before =
            committed()?.instructions.get(name).copied().ok_or(format!("no kernel is named {name}"))?;
        let waste = (before / PLANTED_SHARE + 1).to_string();
        child.extend(["--plant".into(), name.clone(), "--waste".into(), waste]);
    }
    let counts = valgrind::count(&program, &child, folder.path())?;
    if counts.len() != cases.len() {
        return Err(format!("{} kernels ran, {} were counted", cases.len(), counts.len()));
    }
    let instructions = cases.iter().map(|case| case.name.clone()).zip(counts).collect();
    Ok(Table { compiler: compiler(), instructions })
}

/// The compiler's name for itself.
fn compiler() -> String {
    let output = std::process::Command::new("rustc").arg("--version").output();
    let version = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    version.unwrap_or_else(|_| "unknown".into())
}

fn committed() -> Result<Table, String> {
    let text = std::fs::read_to_string(TABLE).map_err(|error| format!("{TABLE}: {error}"))?;
    serde_json::from_str(&text).map_err(|error| format!("{TABLE}: {error}"))
}

/// Writes the counts to the table, beside those of kernels that were not asked for.
fn update(counted: Table, args: &Args) -> Result<(), String> {
    let mut table = counted;
    if !args.words.is_empty() {
        let others = committed()?.instructions.into_iter().filter(|(name, _)| !args.wants(name));
        table.instructions.extend(others);
    }
    let text = serde_json::to_string_pretty(&table).map_err(|error| error.to_string())? + "\n";
    std::fs::write(Path::new(TABLE), text).map_err(|error| format!("{TABLE}: {error}"))?;
    println!("{} kernels counted; {TABLE} is written", table.instructions.len());
    Ok(())
}

/// Fails where a count isn't what the table says.
fn compare(counted: &Table, args: &Args) -> Result<(), String> {
    let mut table = committed()?;
    table.instructions.retain(|name, _| args.wants(name));
    let differences = table.differences(counted);
    if differences.is_empty() {
        println!("{} kernels take as many instructions as in the table", counted.instructions.len());
        return Ok(());
    }
    let mut message = String::from("instructions of a call, before and now:\n");
    differences.iter().for_each(|difference| message.push_str(&format!("  {difference}\n")));
    if table.compiler != counted.compiler {
        let (before, now) = (&table.compiler, &counted.compiler);
        message.push_str(&format!("the table was made with {before}, this is {now}\n"));
    }
    message.push_str("where that is meant: cargo bench --bench instructions -- --update");
    Err(message)
}
