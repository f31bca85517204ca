//! What somebody meant who misspelt a name. Pure.

/// The name that is nearest to a misspelt one, if any is near.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = name.chars().count().div_ceil(3);
    let mut candidates: Vec<_> = known.into_iter().map(|known| (distance(name, known), known)).collect();
    candidates.sort_unstable();
    candidates.first().filter(|(distance, _)| *distance <= most).map(|(_, known)| *known)
}

/// `did you mean shop.orders?`, if a name is near.
pub fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(name, known).map(|meant| format!("did you mean {meant}?"))
}

/// `a, b and 3 others`
pub fn few<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 3;
    let names: Vec<_> = names.into_iter().collect();
    match names.len() {
        0..=SHOWN => names.join(", "),
        more if more == SHOWN + 1 => format!("{} and 1 other", names[..SHOWN].join(", ")),
        more => format!("{} and {} others", names[..SHOWN].join(", "), more - SHOWN),
    }
}

/// How many letters must be changed, inserted or removed to make one word of the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let change = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_near_is_meant() {
        let known = ["nightly-0412", "nightly-0411", "weekly"];
        assert_eq!(nearest("nigthly-0412", known), Some("nightly-0412"));
        assert_eq!(nearest("weakly", known), Some("weekly"));
        assert_eq!(did_you_mean("nightly-412", known).as_deref(), Some("did you mean nightly-0412?"));
        assert_eq!(nearest("monthly-2025", known), None);
        assert_eq!(nearest("x", []), None);
    }

    #[test]
    fn many_names_are_counted() {
        assert_eq!(few(["a", "b", "c"]), "a, b, c");
        assert_eq!(few(["a", "b", "c", "d"]), "a, b, c and 1 other");
        assert_eq!(few(["a", "b", "c", "d", "e"]), "a, b, c and 2 others");
    }
}
