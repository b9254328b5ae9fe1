//! The `name=value;` text of the two private extensions (spec `certificates.md` §2.1).

/// Pairs in written order. `None`: the text breaks the grammar or repeats a name. `limits`: a name may start with `*`, and
/// `x` and `*x` are the same name.
pub(super) fn pairs(text: &str, limits: bool) -> Option<Vec<(String, String)>> {
    let in_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let in_value = |c: char| {
        c.is_ascii_alphanumeric()
            || matches!(c, '_' | '-' | '.' | ':' | '[' | ']' | ',' | '/' | '(' | ')' | ' ' | '\t')
    };
    let body = text.strip_suffix(';')?;
    let mut pairs: Vec<(String, String)> = Vec::new();
    // A hostile text holds thousands of names: a search through `pairs` would cost their square.
    let mut seen = std::collections::HashSet::new();
    for pair in body.split(';') {
        let (name, value) = pair.split_once('=')?;
        let bare = if limits { name.strip_prefix('*').unwrap_or(name) } else { name };
        let well_formed = !bare.is_empty() && bare.chars().all(in_name) && value.chars().all(in_value);
        if !well_formed || !seen.insert(bare) {
            return None;
        }
        pairs.push((name.to_owned(), value.to_owned()));
    }
    Some(pairs)
}
