//! File operations.

use super::object::{Object, object};
use kiln_proto::pb;
use pb::file_action::Action;
use serde_json::Value;

pub(super) fn action(a: &pb::FileAction) -> Value {
    let out =
        object().long("input", a.input).long("secondaryInput", a.secondary_input).long("output", a.output);
    match &a.action {
        Some(Action::Copy(c)) => out.put("copy", copy(c)),
        Some(Action::Mkfile(f)) => {
            let file = object().text("path", &f.path).int("mode", f.mode.into()).bytes("data", &f.data);
            out.put("mkfile", owned(file, f.owner.as_ref(), f.timestamp))
        }
        Some(Action::Mkdir(d)) => {
            let dir = object().text("path", &d.path).int("mode", d.mode.into());
            out.put("mkdir", owned(dir.flag("makeParents", d.make_parents), d.owner.as_ref(), d.timestamp))
        }
        Some(Action::Rm(r)) => {
            let rm = object().text("path", &r.path).flag("allowNotFound", r.allow_not_found);
            out.put("rm", rm.flag("allowWildcard", r.allow_wildcard).done())
        }
        Some(Action::Symlink(s)) => {
            let link = object().text("oldpath", &s.oldpath).text("newpath", &s.newpath);
            out.put("symlink", owned(link, s.owner.as_ref(), s.timestamp))
        }
        None => out,
    }
    .done()
}

fn owned(out: Object, owner: Option<&pb::ChownOpt>, timestamp: i64) -> Value {
    out.some("owner", owner.map(chown)).long("timestamp", timestamp).done()
}

fn copy(c: &pb::FileActionCopy) -> Value {
    object()
        .text("src", &c.src)
        .text("dest", &c.dest)
        .some("owner", c.owner.as_ref().map(chown))
        .int("mode", c.mode.into())
        .flag("followSymlink", c.follow_symlink)
        .flag("dirCopyContents", c.dir_copy_contents)
        .flag("attemptUnpackDockerCompatibility", c.attempt_unpack_docker_compatibility)
        .flag("createDestPath", c.create_dest_path)
        .flag("allowWildcard", c.allow_wildcard)
        .flag("allowEmptyWildcard", c.allow_empty_wildcard)
        .long("timestamp", c.timestamp)
        .texts("includePatterns", &c.include_patterns)
        .texts("excludePatterns", &c.exclude_patterns)
        .flag("alwaysReplaceExistingDestPaths", c.always_replace_existing_dest_paths)
        .text("modeStr", &c.mode_str)
        .texts("requiredPaths", &c.required_paths)
        .done()
}

fn chown(c: &pb::ChownOpt) -> Value {
    use pb::user_opt::User;
    let user = |u: &pb::UserOpt| match &u.user {
        Some(User::ByName(n)) => {
            object().put("byName", object().text("name", &n.name).long("input", n.input).done()).done()
        }
        // One of two: the number is written even when it is 0.
        Some(User::ById(id)) => object().put("byID", *id).done(),
        None => object().done(),
    };
    object().some("user", c.user.as_ref().map(user)).some("group", c.group.as_ref().map(user)).done()
}
