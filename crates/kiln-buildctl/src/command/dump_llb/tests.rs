use super::*;
use pb::file_action::Action;
use pb::op::Op;

fn encoded(op: Op, inputs: Vec<pb::Input>) -> Vec<u8> {
    pb::Op { op: Some(op), inputs, ..Default::default() }.encode_to_vec()
}

fn graph() -> pb::Definition {
    let source = pb::SourceOp { identifier: "local://x".into(), ..Default::default() };
    let source = encoded(Op::Source(source), Vec::new());
    let input = pb::Input { digest: Digest::sha256(&source).to_string(), index: 0 };
    let copy = pb::FileActionCopy { src: "/<a>".into(), dest: "/".into(), mode: -1, ..Default::default() };
    let file = pb::FileOp {
        actions: vec![pb::FileAction { input: -1, action: Some(Action::Copy(copy)), ..Default::default() }],
    };
    let file = encoded(Op::File(file), vec![input.clone()]);
    let mounts = vec![
        pb::Mount { dest: "/".into(), ..Default::default() },
        pb::Mount { dest: "/src".into(), input: 1, output: -1, ..Default::default() },
    ];
    let meta =
        pb::Meta { args: vec!["echo".into(), "a \"b\"".into()], cwd: "/".into(), ..Default::default() };
    let exec = pb::ExecOp { meta: Some(meta), mounts, ..Default::default() };
    let second = pb::Input { digest: Digest::sha256(&file).to_string(), index: 0 };
    let exec = encoded(Op::Exec(exec), vec![input, second]);
    let caps = pb::OpMetadata { ignore_cache: true, ..Default::default() };
    let metadata = [(Digest::sha256(&exec).to_string(), caps)].into();
    pb::Definition { def: vec![source, file, exec], metadata, ..Default::default() }
}

#[test]
fn operations_are_lines_of_json() {
    let graph = graph();
    let lines: Vec<_> = entries(&graph)
        .unwrap()
        .iter()
        .map(|e| line(e, &graph, &DefinitionExtra::default()).replace(&e.digest, "SELF"))
        .collect();
    assert_eq!(
        lines[0],
        "{\"Op\":{\"Op\":{\"source\":{\"identifier\":\"local://x\"}}},\"Digest\":\"SELF\",\"OpMetadata\":{}}\n"
    );
    assert!(lines[1].contains(
        "\"Op\":{\"file\":{\"actions\":[{\"input\":-1,\"secondaryInput\":0,\"output\":0,\"Action\":{\"copy\":{\"src\":\"/\\u003ca\\u003e\",\"dest\":\"/\",\"mode\":-1}}}]}}"
    ), "{}", lines[1]);
    assert!(lines[2].contains("\"mounts\":[{\"dest\":\"/\"},{\"input\":1,\"dest\":\"/src\",\"output\":-1}]"));
    assert!(lines[2].ends_with("\"OpMetadata\":{\"ignore_cache\":true}}\n"));
}

#[test]
fn a_drawing_names_steps_and_mounts() {
    let graph = graph();
    let entries = entries(&graph).unwrap();
    let text = dot::text(&entries);
    assert!(text.starts_with("digraph {\n") && text.ends_with("}\n"));
    assert!(text.contains("[label=\"copy{src=/<a>, dest=/}\" shape=\"note\"];"), "{text}");
    assert!(text.contains("[label=\"echo a \\\"b\\\"\" shape=\"box\"];"), "{text}");
    assert!(
        text.contains(&format!("  {:?} -> {:?} [label=\"/src\"];", entries[1].digest, entries[2].digest))
    );
}
