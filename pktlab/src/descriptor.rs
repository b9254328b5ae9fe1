//! Experiment descriptors and endpoint attributes: grammar and matching (spec `broker.md` §4).

use std::fmt;

/// Why a text is no descriptor or no attribute list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not of the form name=value;name=value; with the characters allowed there")
    }
}

impl std::error::Error for Malformed {}

/// Name and value of each pair, in written order.
pub type Pairs<'a> = Vec<(&'a str, &'a str)>;

/// Takes an experiment descriptor apart: names may repeat, values may hold `*` and `?`.
pub fn parse(text: &[u8]) -> Result<Pairs<'_>, Malformed> {
    pairs(text, true)
}

/// Takes endpoint attributes apart: each name once, no pattern characters.
pub fn parse_attributes(text: &[u8]) -> Result<Pairs<'_>, Malformed> {
    let pairs = pairs(text, false)?;
    let mut names: Vec<_> = pairs.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    if names.windows(2).any(|two| two[0] == two[1]) { Err(Malformed) } else { Ok(pairs) }
}

/// Does an endpoint with these attributes match this descriptor? Malformed texts match nothing.
pub fn matches(descriptor: &[u8], attributes: &[u8]) -> bool {
    let (Ok(wanted), Ok(attributes)) = (parse(descriptor), parse_attributes(attributes)) else {
        return false;
    };
    attributes.iter().all(|(name, value)| {
        let mut patterns = wanted.iter().filter(|(n, _)| n == name).map(|(_, v)| v).peekable();
        patterns.peek().is_none() || patterns.any(|pattern| glob(pattern.as_bytes(), value.as_bytes()))
    })
}

fn pairs(text: &[u8], patterns: bool) -> Result<Pairs<'_>, Malformed> {
    let in_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let in_value = |c: char| {
        c.is_ascii_alphanumeric()
            || matches!(c, '_' | '-' | '.' | ':' | '[' | ']' | ',' | '/' | '(' | ')' | ' ' | '\t')
            || (patterns && matches!(c, '*' | '?'))
    };
    let text = std::str::from_utf8(text).map_err(|_| Malformed)?;
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let text = text.strip_suffix(';').ok_or(Malformed)?;
    text.split(';')
        .map(|pair| {
            let (name, value) = pair.split_once('=').ok_or(Malformed)?;
            let well_formed = !name.is_empty() && name.chars().all(in_name) && value.chars().all(in_value);
            if well_formed { Ok((name, value)) } else { Err(Malformed) }
        })
        .collect()
}

/// `*` any run, `?` one character, all else itself. Linear in pattern × text: on a mismatch only the last star moves.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((star_p, star_t)) => {
                    star = Some((star_p, star_t + 1));
                    p = star_p + 1;
                    t = star_t + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}
