//! RUN --mount (spec dockerfile.md section 6).

use super::kind;
use crate::{Kind, Mount, MountError, MountType, Sharing};
use std::convert::Infallible;

fn mount(text: &str) -> Result<Mount, MountError<Infallible>> {
    Mount::parse(text, &mut |w| Ok(w.replace("$V", "value")))
}

#[test]
fn types_and_keys() {
    let bind = mount("target=/a,source=b,from=c").unwrap();
    assert_eq!((bind.kind, bind.read_only), (MountType::Bind, true));
    assert_eq!(
        (bind.target.as_deref(), bind.source.as_deref(), bind.from.as_deref()),
        (Some("/a"), Some("b"), Some("c"))
    );
    assert!(!mount("type=bind,dst=/a,rw").unwrap().read_only);
    assert!(!mount("destination=/a,readonly=false").unwrap().read_only);
    assert!(mount("dst=/a,rw=false").unwrap().read_only);
    let cache = mount("TYPE=Cache,id=$V,target=/c,sharing=LOCKED,mode=0755,uid=1,gid=2").unwrap();
    assert_eq!(
        (cache.kind, cache.sharing, cache.read_only),
        (MountType::Cache, Some(Sharing::Locked), false)
    );
    assert_eq!((cache.mode, cache.uid, cache.gid), (Some(0o755), Some(1), Some(2)));
    assert_eq!(cache.id.as_deref(), Some("value"));
    assert_eq!(mount("type=tmpfs,target=/t,size=1.5m").unwrap().size, Some(1_572_864));
    let secret = mount("type=secret,id=a,env=,required").unwrap();
    assert_eq!((secret.env.as_deref(), secret.required, secret.read_only), (Some(""), true, true));
    assert_eq!(mount("type=ssh").unwrap().kind, MountType::Ssh);
    assert_eq!(mount("type=cache,\"target=/a,b\"").unwrap().target.as_deref(), Some("/a,b"));
    assert_eq!(mount("type=$V").unwrap_err().to_string(), "unsupported mount type \"value\"");
}

#[test]
fn errors() {
    let cases = [
        ("type=x", "unsupported mount type \"x\""),
        ("type=bin", "unsupported mount type \"bin\" (did you mean bind?)"),
        ("type=cache,sharing=x", "unsupported sharing value \"x\""),
        ("type=cache,sharing=lock", "unsupported sharing value \"lock\" (did you mean locked?)"),
        ("xyzzy=v", "unexpected key 'xyzzy' in 'xyzzy=v'"),
        ("targt=v", "unexpected key 'targt' in 'targt=v' (did you mean target?)"),
        ("size=1", "unexpected key 'size' for mount type 'bind'"),
        ("required", "unexpected key 'required' for mount type 'bind'"),
        ("type=cache,required=true", "unexpected key 'required' for mount type 'cache'"),
        ("x", "invalid field 'x' must be a key=value pair"),
        ("mode=1", "mode not allowed for \"bind\" type mounts"),
        ("type=tmpfs,uid=1", "uid not allowed for \"tmpfs\" type mounts"),
        ("type=cache,mode=9", "invalid value 9 for mode"),
        ("type=cache,uid=-1", "invalid value -1 for uid"),
        ("type=cache,gid=+1", "invalid value +1 for gid"),
        ("ro=maybe", "invalid value for ro: maybe"),
        ("type=tmpfs,size=x", "invalid value for size: x"),
        ("type=secret", "invalid secret mount. one of source, target required"),
        ("type=secret,id=a,source=b", "both source and id can't be set"),
        ("type=secret,id=a,from=b", "secret mount should not have a from"),
        ("type=secret,id=a,sharing=shared", "secret mount should not define sharing"),
        ("type=ssh,sharing=shared", "invalid cache sharing set for ssh mount"),
        ("", "failed to parse csv mounts: EOF"),
    ];
    for (text, want) in cases {
        assert_eq!(mount(text).unwrap_err().to_string(), want, "{text}");
    }
    let failed: MountError<&str> = Mount::parse("target=$x", &mut |_| Err("no x")).unwrap_err();
    assert_eq!(failed.to_string(), "no x");
}

#[test]
fn flags_of_run() {
    let Kind::Run(run) = kind("RUN --mount=type=bind,from=base,target=/x --mount=type=cache,target=$V x")
    else {
        panic!()
    };
    assert_eq!(run.mount_flags[0].from.as_deref(), Some("base"));
    assert_eq!(run.mount_flags[1].from, None);
    let mounts = run.mounts(|w| Ok::<_, Infallible>(w.replace("$V", "/v"))).unwrap();
    assert_eq!(mounts[1].target.as_deref(), Some("/v"));
}
