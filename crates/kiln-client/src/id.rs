//! Random names for builds and sessions.

/// A new random name: 25 digits of base 36, as BuildKit's, so that everything that takes theirs takes ours.
pub fn new_id() -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    (0..25).map(|_| char::from(DIGITS[rand::random_range(0..DIGITS.len())])).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn ids_are_25_digits_and_differ() {
        let (a, b) = (super::new_id(), super::new_id());
        assert_eq!(a.len(), 25);
        assert!(a.bytes().all(|c| c.is_ascii_digit() || c.is_ascii_lowercase()));
        assert_ne!(a, b);
    }
}
