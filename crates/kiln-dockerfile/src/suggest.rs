//! Finding the known word that a mistyped one is nearest to.

/// The option at edit distance 1 or 2 from `word`; none when `word` is itself an option.
///
/// With `fold_case`, case is ignored and the answer takes the case of `word` where that is uniform.
/// Of several equally near ones the one with the longest common beginning wins, then the first.
pub fn nearest(word: &str, options: &[&str], fold_case: bool) -> Option<String> {
    // A word this long is not a typing mistake in a keyword, and the table grows with its length.
    if word.len() > 64 {
        return None;
    }
    let wanted = if fold_case { word.to_lowercase() } else { word.to_owned() };
    let mut best: Option<(usize, usize, String)> = None;
    for option in options {
        let option = if fold_case { option.to_lowercase() } else { (*option).to_owned() };
        if option == wanted {
            return None;
        }
        let distance = edit_distance(&wanted, &option);
        let differs_at = wanted.chars().zip(option.chars()).take_while(|(a, b)| a == b).count();
        let better =
            best.as_ref().is_none_or(|(d, at, _)| distance < *d || (distance == *d && differs_at > *at));
        if distance < 3 && better {
            best = Some((distance, differs_at, option));
        }
    }
    let found = best?.2;
    Some(if fold_case && word == word.to_uppercase() && word != word.to_lowercase() {
        found.to_uppercase()
    } else {
        found
    })
}

fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
