//! jinja2's filters for pages: `escape`, `striptags`, `urlencode`, `urlize` and `xmlattr`.

use super::args::Args;
use super::budget::Budget;
use super::text::{Shown, Text, repr};
use super::values::{self, type_name};
use super::{strings, wrong};
use crate::rewrite::is_space;
use minijinja::{Error, Value};

/// The names of the characters from U+00A0 to U+00FF.
const LATIN: [&str; 96] = [
    "nbsp", "iexcl", "cent", "pound", "curren", "yen", "brvbar", "sect", "uml", "copy", "ordf", "laquo",
    "not", "shy", "reg", "macr", "deg", "plusmn", "sup2", "sup3", "acute", "micro", "para", "middot",
    "cedil", "sup1", "ordm", "raquo", "frac14", "frac12", "frac34", "iquest", "Agrave", "Aacute", "Acirc",
    "Atilde", "Auml", "Aring", "AElig", "Ccedil", "Egrave", "Eacute", "Ecirc", "Euml", "Igrave", "Iacute",
    "Icirc", "Iuml", "ETH", "Ntilde", "Ograve", "Oacute", "Ocirc", "Otilde", "Ouml", "times", "Oslash",
    "Ugrave", "Uacute", "Ucirc", "Uuml", "Yacute", "THORN", "szlig", "agrave", "aacute", "acirc", "atilde",
    "auml", "aring", "aelig", "ccedil", "egrave", "eacute", "ecirc", "euml", "igrave", "iacute", "icirc",
    "iuml", "eth", "ntilde", "ograve", "oacute", "ocirc", "otilde", "ouml", "divide", "oslash", "ugrave",
    "uacute", "ucirc", "uuml", "yacute", "thorn", "yuml",
];
/// The characters for which references by the numbers 128 to 159 stand.
const WINDOWS: &str = "€\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8d}Ž\u{8f}\u{90}‘’“”•–—˜™š›œ\u{9d}žŸ";
/// Longest of these names, and longest name of any character, as in Python.
const MAX_LATIN: usize = 6;
const MAX_REFERENCE: usize = 32;
/// Bytes that are looked at to find the character for a reference by name.
const REFERENCE_WORK: u64 = 1024;

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn escaped(c: char) -> Option<String> {
    let escaped = match c {
        '&' => "&amp;",
        '<' => "&lt;",
        '>' => "&gt;",
        '\'' => "&#39;",
        '"' => "&#34;",
        _ => return None,
    };
    Some(escaped.into())
}

/// A text in which no character has a meaning for HTML.
fn plain(text: &str, args: &Args<'_>) -> Result<String, Error> {
    let mut out = Text::new(&args.budget);
    out.push_escaped(text, escaped)?;
    Ok(out.finish())
}

pub(super) fn escape(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    plain(&args.shown(&value)?, args).map(Value::from)
}

/// The text without comments and tags, with single spaces, and with the characters that references stand for.
pub(super) fn striptags(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    let text = args.shown(&value)?;
    args.budget.make(text.len().saturating_mul(4))?;
    args.budget.work(REFERENCE_WORK.saturating_mul(text.matches('&').count() as u64))?;
    let text = without_tags(&without_comments(&text));
    let words: Vec<&str> = text.split(is_space).filter(|word| !word.is_empty()).collect();
    Ok(Value::from(unescaped(&words.join(" "))))
}

fn without_comments(text: &str) -> String {
    const BEGIN: &str = "<!--";
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    loop {
        // A comment may begin with what stood before one that was taken out.
        let joined = (1..BEGIN.len())
            .rev()
            .find(|&cut| out.ends_with(&BEGIN[..cut]) && rest.starts_with(&BEGIN[cut..]));
        let (kept, comment) = match joined {
            Some(cut) => (0, BEGIN.len() - cut),
            None => match rest.find(BEGIN) {
                Some(at) => (at, at + BEGIN.len()),
                None => break,
            },
        };
        // The end may begin with the hyphens of the beginning.
        let behind = &rest[comment..];
        let end = if behind.starts_with('>') {
            Some(1)
        } else if behind.starts_with("->") {
            Some(2)
        } else {
            behind.find("-->").map(|at| at + 3)
        };
        let Some(end) = end else { break };
        out.push_str(&rest[..kept]);
        out.truncate(out.len() - joined.unwrap_or(0));
        rest = &behind[end..];
    }
    out + rest
}

fn without_tags(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('<')
        && let Some(length) = rest[start..].find('>')
    {
        out.push_str(&rest[..start]);
        rest = &rest[start + length + 1..];
    }
    out + rest
}

/// Python's `html.unescape`, which knows more names.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match by_number(rest).or_else(|| by_name(rest)) {
            Some((char, length)) => {
                out.extend(char);
                rest = &rest[length..];
            }
            None => out.push('&'),
        }
    }
    out + rest
}

/// The character for `#60;` or `#x3c;`, which may have no semicolon, and the reference's length.
fn by_number(text: &str) -> Option<(Option<char>, usize)> {
    let digits = text.strip_prefix('#')?;
    let (digits, radix) = digits.strip_prefix(['x', 'X']).map_or((digits, 10), |digits| (digits, 16));
    let prefix = text.len() - digits.len();
    let count = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
    if count == 0 {
        return None;
    }
    let number = u32::from_str_radix(&digits[..count], radix).unwrap_or(u32::MAX);
    let length = prefix + count + usize::from(digits[count..].starts_with(';'));
    let char = match number {
        0 => Some('\u{fffd}'),
        0x80..=0x9f => WINDOWS.chars().nth(number as usize - 0x80),
        0x0d => Some('\r'),
        0x1..=0x8 | 0xb | 0xe..=0x1f | 0x7f | 0xfdd0..=0xfdef => None,
        number if number <= 0x10_ffff && number & 0xfffe == 0xfffe => None,
        number => Some(char::from_u32(number).unwrap_or('\u{fffd}')),
    };
    Some((char, length))
}

/// The character for `lt;`, and the reference's length. Old names may have no semicolon.
fn by_name(text: &str) -> Option<(Option<char>, usize)> {
    if text.starts_with("apos;") {
        return Some((Some('\''), 5));
    }
    let end = text.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(text.len());
    let longest = end.min(MAX_LATIN);
    let (char, length) = (2..=longest).rev().find_map(|length| Some((named(&text[..length])?, length)))?;
    if length < end && text[end..].starts_with(';') && end < MAX_REFERENCE {
        // A longer name with a semicolon, as `notin;`, isn't known here.
        return None;
    }
    Some((Some(char), length + usize::from(text[length..].starts_with(';'))))
}

fn named(name: &str) -> Option<char> {
    match name {
        "amp" | "AMP" => Some('&'),
        "lt" | "LT" => Some('<'),
        "gt" | "GT" => Some('>'),
        "quot" | "QUOT" => Some('"'),
        "COPY" => Some('©'),
        "REG" => Some('®'),
        name => {
            let at = LATIN.iter().position(|known| *known == name)?;
            char::from_u32(0xa0 + at as u32)
        }
    }
}

/// A text for a URL's path; or for its query, where spaces are plus signs and slashes are quoted.
fn quoted(text: &str, in_query: bool, out: &mut Text<'_>) -> Result<(), Error> {
    for &byte in text.as_bytes() {
        match byte {
            b' ' if in_query => out.push('+')?,
            b'/' if !in_query => out.push('/')?,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => {
                out.push(char::from(byte))?
            }
            byte => out.push_str(&format!("%{byte:02X}"))?,
        }
    }
    Ok(())
}

pub(super) fn urlencode(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    let mut out = Text::new(&args.budget);
    let is_list = values::sequence(&value).is_some() || value.is_undefined();
    let pairs = if let Some(dict) = values::as_dict(&value) {
        dict.pairs.clone()
    } else if is_list {
        let pair = |pair: Value| match &values::items(&args.budget, &pair)?[..] {
            [key, value] => Ok((key.clone(), value.clone())),
            other => Err(wrong(format!("urlencode: a pair has {} items", other.len()))),
        };
        values::items(&args.budget, &value)?.into_iter().map(pair).collect::<Result<_, _>>()?
    } else {
        quoted(&args.shown(&value)?, false, &mut out)?;
        return Ok(Value::from(out.finish()));
    };
    for (i, (key, value)) in pairs.iter().enumerate() {
        if i > 0 {
            out.push('&')?;
        }
        quoted(&args.shown(key)?, true, &mut out)?;
        out.push('=')?;
        quoted(&args.shown(value)?, true, &mut out)?;
    }
    Ok(Value::from(out.finish()))
}

pub(super) fn xmlattr(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    let with_space = args.flag("autospace", true)?;
    let dict = values::as_dict(&value)
        .ok_or_else(|| wrong(format!("xmlattr: '{}' is no map", type_name(&value))))?;
    let mut out = Text::new(&args.budget);
    let mut is_first = !with_space;
    for (key, value) in dict.pairs.iter().filter(|(_, value)| !value.is_none() && !value.is_undefined()) {
        let name = key.as_str().ok_or_else(|| wrong("xmlattr: the name of an attribute must be str"))?;
        if name.contains(['\t', '\n', '\x0b', '\x0c', '\r', ' ', '/', '>', '=']) {
            let name = repr(key, &args.budget)?;
            return Err(wrong(format!("Invalid character in attribute name: {name}")));
        }
        if !is_first {
            out.push(' ')?;
        }
        is_first = false;
        out.push_escaped(name, escaped)?;
        out.push_str("=\"")?;
        out.push_escaped(&args.shown(value)?, escaped)?;
        out.push('"')?;
    }
    Ok(Value::from(out.finish()))
}

/// The attributes of links.
struct Links<'a> {
    limit: Option<i128>,
    /// `rel` and `target`.
    attributes: String,
    schemes: Vec<Shown<'a>>,
    budget: &'a Budget,
}

pub(super) fn urlize(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    let limit = args.given("trim_url_limit")?;
    let limit = limit.map(|limit| super::numbers::integer("trim_url_limit", &limit)).transpose()?;
    let nofollow = args.flag("nofollow", false)?;
    let target = args.given_string("target")?;
    let rel = args.given_string("rel")?;
    let schemes = args.given("extra_schemes")?;
    let schemes =
        schemes.map(|schemes| values::items(&args.budget, &schemes)).transpose()?.unwrap_or_default();
    if let Some(scheme) = schemes.iter().find(|scheme| !scheme.as_str().is_some_and(is_scheme)) {
        let scheme = repr(scheme, &args.budget)?;
        return Err(wrong(format!("{scheme} is not a valid URI scheme prefix.")));
    }
    let mut parts: Vec<&str> = vec!["noopener"];
    parts.extend(rel.iter().filter_map(|rel| rel.as_str()).flat_map(|rel| rel.split(is_space)));
    parts.extend(nofollow.then_some("nofollow"));
    parts.retain(|part| !part.is_empty());
    parts.sort_unstable();
    parts.dedup();
    let mut attributes = format!(" rel=\"{}\"", plain(&parts.join(" "), args)?);
    if let Some(target) = target.as_ref().and_then(|target| target.as_str()).filter(|text| !text.is_empty()) {
        attributes.push_str(&format!(" target=\"{}\"", plain(target, args)?));
    }
    let schemes = schemes.iter().map(|scheme| args.shown(scheme)).collect::<Result<_, _>>()?;
    let links = Links { limit, attributes, schemes, budget: &args.budget };
    let text = plain(&args.shown(&value)?, args)?;
    let mut out = Text::new(&args.budget);
    let mut rest = &*text;
    while !rest.is_empty() {
        let word = rest.find(is_space).unwrap_or(rest.len());
        links.push(&rest[..word], &mut out)?;
        let blank = rest[word..].find(|c| !is_space(c)).map_or(rest.len(), |more| word + more);
        out.push_str(&rest[word..blank])?;
        rest = &rest[blank..];
    }
    Ok(Value::from(out.finish()))
}

impl Links<'_> {
    /// Writes a word, as a link where it is one.
    fn push(&self, word: &str, out: &mut Text<'_>) -> Result<(), Error> {
        let (start, end) = bounds(word);
        let address = &word[start..end];
        out.push_str(&word[..start])?;
        if is_url(address) {
            let scheme = if has_scheme(address).is_some() { "" } else { "https://" };
            let shown = shortened(address, self.limit);
            self.link(&[scheme, address], &self.attributes, &shown, out)?;
        } else if let Some(mail) = address.strip_prefix("mailto:").filter(|mail| is_mail(mail)) {
            self.link(&[address], "", mail, out)?;
        } else if !address.starts_with("www.")
            && !address.starts_with('@')
            && !address.contains(':')
            && is_mail(address)
        {
            self.link(&["mailto:", address], "", address, out)?;
        } else {
            self.budget.work(self.schemes.len() as u64)?;
            let schemes = self.schemes.iter();
            // As jinja2, which looks for the next scheme in the link that it has made: none begins with `<`.
            match schemes
                .map(|scheme| &**scheme)
                .find(|&scheme| address != scheme && address.starts_with(scheme))
            {
                Some(_) => self.link(&[address], &self.attributes, address, out)?,
                None => out.push_str(address)?,
            }
        }
        out.push_str(&word[end..])
    }

    fn link(&self, address: &[&str], attributes: &str, shown: &str, out: &mut Text<'_>) -> Result<(), Error> {
        out.push_str("<a href=\"")?;
        for part in address {
            out.push_str(part)?;
        }
        out.push('"')?;
        out.push_str(attributes)?;
        out.push('>')?;
        out.push_str(shown)?;
        out.push_str("</a>")
    }
}

/// `x[:limit] + '...'` where it is longer.
fn shortened(address: &str, limit: Option<i128>) -> String {
    let Some(limit) = limit else { return address.to_owned() };
    let length = address.chars().count() as i128;
    if length <= limit {
        return address.to_owned();
    }
    let kept = if limit < 0 { length.saturating_add(limit).max(0) } else { limit };
    address.chars().take(kept as usize).chain("...".chars()).collect()
}

/// A word's address, without the brackets and punctuation around it. Brackets that are closed within it belong to it.
fn bounds(word: &str) -> (usize, usize) {
    let mut start = 0;
    while let Some(length) =
        ["(", "<", "&lt;"].iter().find(|&&begin| word[start..].starts_with(begin)).map(|x| x.len())
    {
        start += length;
    }
    let mut end = word.len();
    let ends = [")", ">", ".", ",", "&gt;"];
    while let Some(length) = ends.iter().find(|&&tail| word[start..end].ends_with(tail)).map(|x| x.len()) {
        end -= length;
    }
    for (open, close) in [("(", ")"), ("<", ">"), ("&lt;", "&gt;")] {
        let opened = word[start..end].matches(open).count();
        if opened <= word[start..end].matches(close).count() {
            continue;
        }
        for _ in 0..opened.min(word[end..].matches(close).count()) {
            end += word[end..].find(close).map_or(0, |at| at + close.len());
        }
    }
    (start, end)
}

fn is_scheme(text: &str) -> bool {
    let name = text.strip_suffix("//").or_else(|| text.strip_suffix('/')).unwrap_or(text);
    let Some(name) = name.strip_suffix(':') else { return false };
    name.chars().count() >= 2 && name.chars().all(|c| is_word(c) || matches!(c, '.' | '+' | '-'))
}

/// Whether all of `text` is of `least` to `most` such characters.
fn is_run(text: &str, least: usize, most: usize, is: impl Fn(char) -> bool) -> bool {
    (least..=most).contains(&text.chars().count()) && text.chars().all(is)
}

fn starts_with(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix))
}

/// The text behind `http://` or `https://`, in lower case.
fn has_scheme(text: &str) -> Option<&str> {
    text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))
}

/// What jinja2 takes for the address of a page.
fn is_url(text: &str) -> bool {
    let scheme = ["https://", "http://", "www."].into_iter().find(|scheme| starts_with(text, scheme));
    let rest = &text[scheme.map_or(0, str::len)..];
    let host_end = match rest.starts_with('[') {
        true => rest.find(']').map_or(rest.len(), |at| at + 1),
        false => rest.find([':', '/', '?', '#']).unwrap_or(rest.len()),
    };
    let (host, mut rest) = rest.split_at(host_end);
    let is_host = match scheme {
        Some("www.") => is_name(host) || is_known_name(text, host.len() + 4),
        Some(_) => is_name(host) || is_number(host),
        None => is_known_name(text, host.len()),
    };
    if let Some(port) = rest.strip_prefix(':') {
        let end = port.find(['/', '?', '#']).unwrap_or(port.len());
        if !is_run(&port[..end], 1, 5, strings::is_decimal) {
            return false;
        }
        rest = &port[end..];
    }
    is_host && (rest.is_empty() || rest.starts_with(['/', '?', '#']))
}

/// Labels and a top-level domain.
fn is_name(host: &str) -> bool {
    let (labels, last) = host.rsplit_once('.').map_or((None, host), |(labels, last)| (Some(labels), last));
    let is_label = |c: char| is_word(c) || matches!(c, '%' | '-');
    let international = starts_with(last, "xn--") && is_run(&last[4..], 2, 59, |c| is_word(c) || c == '%');
    (international || is_run(last, 2, 63, |c| c.is_ascii_alphabetic()))
        && labels.is_none_or(|labels| labels.split('.').all(|label| is_run(label, 1, usize::MAX, is_label)))
}

/// The first `length` bytes are labels and a top-level domain that many have.
fn is_known_name(text: &str, length: usize) -> bool {
    let Some((labels, last)) = text[..length].rsplit_once('.') else { return false };
    let known = ["com", "net", "int", "edu", "gov", "org", "info", "mil"];
    let is_label = |c: char| is_word(c) || matches!(c, '%' | '-');
    known.iter().any(|known| known.eq_ignore_ascii_case(last))
        && labels.split('.').all(|label| is_run(label, 2, 63, is_label))
}

/// An address of IPv4, or one of IPv6 in brackets, as loosely as jinja2 reads them.
fn is_number(host: &str) -> bool {
    let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) else {
        let parts = host.split('.');
        return parts.clone().count() == 4
            && parts.into_iter().all(|part| is_run(part, 1, 3, strings::is_decimal));
    };
    let is_hex = |c: char| c.is_ascii_hexdigit() || strings::is_decimal(c);
    let mut rest = inner;
    for part in 0..8 {
        let digits = rest.chars().take_while(|&c| is_hex(c)).take(4).map(char::len_utf8).sum();
        rest = &rest[digits..];
        match rest.strip_prefix(':') {
            Some(behind) => rest = behind,
            None if part < 2 => return false,
            None => {}
        }
        if part >= 2 && rest.is_empty() {
            return true;
        }
    }
    rest.is_empty()
}

fn is_mail(text: &str) -> bool {
    let Some((user, host)) = text.rsplit_once('@') else { return false };
    let Some((labels, last)) = host.rsplit_once('.') else { return false };
    !user.is_empty()
        && !last.is_empty()
        && last.chars().all(is_word)
        && labels.starts_with(is_word)
        && labels.chars().all(|c| is_word(c) || matches!(c, '.' | '-'))
}
