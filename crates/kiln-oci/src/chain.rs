//! Chain ids: the identity of a stack of layers (OCI image spec, config.md, "Layer ChainID").

use kiln_digest::Digest;

/// The chain id of the whole stack, `None` for no layers.
pub fn chain_id(diff_ids: &[Digest]) -> Option<Digest> {
    chain_ids(diff_ids).pop()
}

/// The chain id of every prefix of the stack, bottom layer first.
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut out: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for id in diff_ids {
        let next = match out.last() {
            None => *id,
            Some(parent) => Digest::sha256(format!("{parent} {id}")),
        };
        out.push(next);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_specification() {
        let [a, b, c] = ["a", "b", "c"].map(Digest::sha256);
        assert_eq!(chain_id(&[]), None);
        assert_eq!(chain_id(&[a]), Some(a));
        let ab = Digest::sha256(format!("{a} {b}"));
        assert_eq!(chain_id(&[a, b]), Some(ab));
        assert_eq!(chain_id(&[a, b, c]), Some(Digest::sha256(format!("{ab} {c}"))));
    }
}
