//! Options of `smallmind train` from a TOML file: each key is an option's name without its dashes. They are put before
//! the options of the command line, which so count where both name one.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::Command;
use smallmind::text::{escaped, escaped_path};
use toml::{Table, Value};

use crate::small_file;

/// The option that names the file.
const OPTION: &str = "--config";
/// The key of the texts, which are no option.
const TEXTS: &str = "texts";
/// Longest file, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// A command line with the options of the file that it names, if it is one of `train` and names one.
///
/// # Errors
/// What is wrong with the file.
pub fn expanded(line: Vec<OsString>, train: &Command) -> Result<Vec<OsString>, String> {
    if line.get(1).is_none_or(|command| command != "train") {
        return Ok(line);
    }
    let Some(path) = named(&line[2..]) else { return Ok(line) };
    let path = Path::new(path);
    let text = small_file::read_text(path, MAX_FILE).map_err(|error| error.to_string())?;
    let wrong = |why: &str| format!("{}: {why}", escaped_path(path));
    let table: Table = text.parse().map_err(|error: toml::de::Error| wrong(&one_line(&error)))?;
    let (mut options, mut texts) = (Vec::new(), Vec::new());
    for (key, value) in &table {
        let known = |option: &clap::Arg| option.get_long().is_some_and(|name| name == key);
        match (key.as_str(), value) {
            (TEXTS, Value::Array(list)) => texts = strings(list).map_err(|why| wrong(&why))?,
            (TEXTS, _) => return Err(wrong("'texts' is a list of files")),
            ("config", _) => return Err(wrong("a file can't name another one")),
            _ if !train.get_arguments().any(known) => {
                return Err(wrong(&format!("there is no option '{}'", escaped(key))));
            }
            _ => options.extend(option(key, value).map_err(|why| wrong(&why))?),
        }
    }
    let (command, own) = line.split_at(2);
    // Texts of the command line are the only ones.
    let parsed =
        train.clone().ignore_errors(true).try_get_matches_from([&[OsString::from("train")], own].concat());
    if parsed.is_ok_and(|own| own.get_raw(TEXTS).is_some()) {
        texts.clear();
    }
    Ok([command, &options, own, &texts].concat())
}

/// The file that the arguments name.
fn named(arguments: &[OsString]) -> Option<&OsStr> {
    let mut arguments = arguments.iter().take_while(|argument| *argument != "--");
    while let Some(argument) = arguments.next() {
        if argument == OPTION {
            return arguments.next().map(OsString::as_os_str);
        }
        let inline = argument.to_str().and_then(|text| text.strip_prefix(OPTION)?.strip_prefix('='));
        if let Some(path) = inline {
            return Some(OsStr::new(path));
        }
    }
    None
}

/// An option as on the command line; a switch stands there or doesn't.
fn option(key: &str, value: &Value) -> Result<Vec<OsString>, String> {
    let name = format!("--{key}");
    let text = match value {
        Value::Boolean(true) => return Ok(vec![name.into()]),
        Value::Boolean(false) => return Ok(Vec::new()),
        Value::String(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        _ => return Err(format!("'{}' is a text, a number, true or false", escaped(key))),
    };
    Ok(vec![format!("{name}={text}").into()])
}

fn strings(list: &[Value]) -> Result<Vec<OsString>, String> {
    let text = |value: &Value| value.as_str().map(OsString::from);
    list.iter().map(text).collect::<Option<_>>().ok_or_else(|| "'texts' is a list of files".into())
}

/// A parser's message, which has several lines with a picture of the place, in one.
fn one_line(error: &toml::de::Error) -> String {
    error.message().lines().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Args as _;

    fn train() -> Command {
        super::super::args::Train::augment_args(Command::new("train"))
    }

    fn of(file: &str, line: &str) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.toml");
        std::fs::write(&path, file).unwrap();
        let line = line.replace("FILE", path.to_str().unwrap());
        let whole = expanded(line.split(' ').map(OsString::from).collect(), &train())?;
        let whole: Vec<_> = whole.iter().map(|argument| argument.to_str().unwrap()).collect();
        Ok(whole.join(" ").replace(path.to_str().unwrap(), "FILE"))
    }

    #[test]
    fn options_of_a_file_stand_before_those_of_the_line() {
        let file = "new = 'llama'\nlr = 1e-3\nbatch = 16\nforce = true\nresume = false\ntexts = ['a b', 'c']\nout = 'x'";
        let line = "smallmind train --config FILE --lr 2";
        let options = "--new=llama --lr=0.001 --batch=16 --force --out=x";
        let mut sorted: Vec<_> = options.split(' ').collect();
        sorted.sort_unstable();
        let whole = of(file, line).unwrap();
        let begin = whole.strip_prefix("smallmind train ").unwrap();
        let own = begin.find(" --config").unwrap();
        let mut given: Vec<_> = begin[..own].split(' ').collect();
        given.sort_unstable();
        assert_eq!(given, sorted);
        assert_eq!(&begin[own..], " --config FILE --lr 2 a b c");
        // Texts of the line are the only ones.
        assert!(
            of(file, "smallmind train own.txt --config=FILE").unwrap().ends_with("own.txt --config=FILE")
        );
        assert_eq!(of(file, "smallmind bench --config FILE").unwrap(), "smallmind bench --config FILE");
    }

    #[test]
    fn a_wrong_file_is_named() {
        for (file, why) in [
            ("rate = 1", "run.toml: there is no option 'rate'"),
            ("lr = [1]", "run.toml: 'lr' is a text, a number, true or false"),
            ("texts = 'a'", "run.toml: 'texts' is a list of files"),
            ("config = 'a'", "run.toml: a file can't name another one"),
            ("lr = ", "run.toml: "),
        ] {
            let error = of(file, "smallmind train --config FILE").unwrap_err();
            assert!(error.contains(why) && !error.contains('\n'), "{error}");
        }
        assert!(of("", "smallmind train --config /none/at/all").is_err());
    }
}
