//! What a context is.

use super::args;
use crate::build::context::{Context, DockerfileSource, is_archive, is_remote, peek, resolve};

fn stdin(flags: &[&str], head: &[u8]) -> Result<(Context, DockerfileSource), String> {
    let inputs = resolve(&args(flags), || Ok(head.to_vec())).map_err(|e| e.to_string())?;
    Ok((inputs.context, inputs.dockerfile))
}

fn tar_header() -> Vec<u8> {
    let mut block = vec![0u8; 512];
    block[..10].copy_from_slice(b"Dockerfile");
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[test]
fn archives_are_told_from_dockerfiles() {
    assert!(is_archive(&tar_header()));
    assert!(is_archive(b"BZh9") && is_archive(&[0x1f, 0x8b, 8, 0]) && is_archive(b"\xfd7zXZ\0"));
    assert!(is_archive(&[0x28, 0xb5, 0x2f, 0xfd]));
    for text in ["FROM alpine\n", "", "# syntax=x\n"] {
        assert!(!is_archive(text.as_bytes()), "{text:?}");
    }
    assert!(!is_archive(&[0; 1024]) && !is_archive(&[b'a'; 1024]));
    let mut broken = tar_header();
    broken[0] ^= 1;
    assert!(!is_archive(&broken));
}

#[test]
fn context_from_stdin() {
    let in_context = |name: &str| DockerfileSource::InContext { name: name.into() };
    let tar = tar_header();
    assert_eq!(stdin(&["-"], &tar), Ok((Context::StdinArchive, in_context("Dockerfile"))));
    assert_eq!(stdin(&["-f", "x", "-"], &tar), Ok((Context::StdinArchive, in_context("x"))));
    assert_eq!(stdin(&["-"], b"FROM x"), Ok((Context::Empty, DockerfileSource::Stdin)));
    assert_eq!(stdin(&["-"], b""), Err("the build context on stdin is empty".into()));
    assert_eq!(
        stdin(&["-f", "-", "-"], &tar),
        Err("stdin cannot be both the build context and the Dockerfile".into())
    );
    assert_eq!(
        stdin(&["-f", "x", "-"], b"FROM x"),
        Err("stdin holds a Dockerfile, and --file names another one".into())
    );
}

#[test]
fn other_contexts() {
    assert_eq!(stdin(&[""], b""), Err("name the build context, \".\" for the current directory".into()));
    let missing = stdin(&["/does/not/exist"], b"").unwrap_err();
    assert_eq!(missing, "build context /does/not/exist: No such file or directory (os error 2)");
    assert!(stdin(&["/etc/hosts"], b"").unwrap_err().contains("is a file; a directory is needed"));
    assert!(stdin(&["-f", "/no/such/dir/Dockerfile", "."], b"").unwrap_err().contains("/no/such/dir"));
    assert!(stdin(&["file:///etc"], b"").unwrap_err().ends_with("name the directory without file://"));
    assert_eq!(stdin(&["-f", "/etc/ssl", "."], b""), Err("Dockerfile /etc/ssl is a directory".into()));
    for url in [
        "https://x/y",
        "http://x",
        "git://x/y",
        "ssh://git@x/y",
        "git@github.com:a/b.git",
        "github.com/a/b#main:sub",
    ] {
        assert!(is_remote(url), "{url}");
    }
    for path in [".", "dir", "a@b", "a/b@c:d", "./x@y:z", "@x:y", "user@host/x:y"] {
        assert!(!is_remote(path), "{path}");
    }
}

#[test]
fn peek_takes_what_there_is() {
    assert_eq!(peek(&mut &b"abc"[..]).unwrap(), b"abc");
    assert_eq!(peek(&mut &vec![7u8; 5000][..]).unwrap().len(), 1024);
}
