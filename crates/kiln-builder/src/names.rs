//! Names of builders.

use rand::seq::IndexedRandom as _;

use crate::Error;

const ADJECTIVES: [&str; 32] = [
    "amber", "bold", "brisk", "calm", "clever", "cosy", "dapper", "eager", "fair", "gentle", "glad", "happy",
    "jolly", "keen", "kind", "lively", "lucid", "mellow", "merry", "nimble", "patient", "plucky", "proud",
    "quiet", "rapid", "sharp", "sturdy", "sunny", "swift", "tidy", "warm", "witty",
];

const NOUNS: [&str; 32] = [
    "anvil", "arch", "beacon", "bellows", "bench", "brick", "chisel", "clay", "cobble", "crucible", "ember",
    "flame", "flint", "forge", "furnace", "glaze", "granite", "hammer", "hearth", "ingot", "lantern",
    "marble", "mason", "mortar", "oven", "potter", "quarry", "shard", "slate", "smith", "tile", "wheel",
];

/// The stored form of a name.
///
/// # Errors
/// It does not begin with a letter, or has other characters than letters, digits and `._-`.
pub(crate) fn validate(name: &str) -> Result<String, Error> {
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic());
    let rest = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
    if begins && rest { Ok(name.to_ascii_lowercase()) } else { Err(Error::Name(name.to_owned())) }
}

/// A name that nothing has yet.
pub(crate) fn random(is_taken: impl Fn(&str) -> bool) -> Option<String> {
    let mut rng = rand::rng();
    (0..6).find_map(|attempt| {
        let (a, n) = (ADJECTIVES.choose(&mut rng)?, NOUNS.choose(&mut rng)?);
        let name = match attempt {
            0 => format!("{a}_{n}"),
            _ => format!("{a}_{n}{}", rand::random_range(0..1000)),
        };
        (!is_taken(&name)).then_some(name)
    })
}
