//! Every dependency carries a licence that allows shipping kiln under Apache-2.0.

use crate::metadata::Workspace;

const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "OpenSSL",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
    "bzip2-1.0.6",
];

pub(crate) fn check(workspace: &Workspace) -> Vec<String> {
    workspace
        .packages
        .iter()
        .filter_map(|p| match &p.licence {
            None => Some(format!("{}: no licence is stated", p.name)),
            Some(l) if !allowed(l) => Some(format!("{}: licence {l:?} is not on the list", p.name)),
            Some(_) => None,
        })
        .collect()
}

/// `A OR B` needs one that is allowed, `A AND B` needs both; `/` is the old spelling of OR.
fn allowed(expression: &str) -> bool {
    let plain = expression.replace(['(', ')'], "").replace('/', " OR ");
    plain.split(" AND ").all(|all| all.split(" OR ").any(|one| ALLOWED.contains(&one.trim())))
}

#[test]
fn expressions_are_understood() {
    assert!(allowed("MIT OR Apache-2.0"));
    assert!(allowed("GPL-3.0 OR MIT"));
    assert!(allowed("(MIT OR Apache-2.0) AND Unicode-3.0"));
    assert!(!allowed("MIT AND GPL-3.0"));
}
