use super::{Nil, Struct, Template, Value};

fn worker(id: &str) -> Value {
    let labels: std::collections::BTreeMap<_, _> =
        [("b".to_string(), "2".to_string()), ("a".to_string(), "<1>".to_string())].into();
    Struct::new("*client.WorkerInfo")
        .with("ID", "id", id)
        .with("Labels", "labels", &labels)
        .with("GCPolicy", "gcPolicy", Value::Nil(Nil::List))
        .omit("Note", "note", "")
        .into()
}

fn run(template: &str) -> Result<String, String> {
    Template::parse(template)?.execute(&Value::List(vec![worker("one"), worker("two")]))
}

#[test]
fn fields_loops_and_functions() {
    for (template, expected) in [
        ("{{range .}}{{.ID}} {{end}}", "one two "),
        ("{{len .}}", "2"),
        ("{{(index . 1).ID}}", "two"),
        ("{{range .}}{{index .Labels \"a\"}}{{.Labels.b}};{{end}}", "<1>2;<1>2;"),
        ("{{range .}}{{.Labels}}\n{{end}}", "map[a:<1> b:2]\nmap[a:<1> b:2]\n"),
        ("{{range .}}{{if .Note}}x{{else}}-{{end}}{{end}}", "--"),
        ("{{range (index . 0).GCPolicy}}x{{else}}none{{end}}", "none"),
        ("a {{- /* nothing */ -}} b", "ab"),
        ("a {{- `x` -}} b", "axb"),
        ("{{. | len}}", "2"),
        ("{{(index . 0).ID | json}}", "\"one\""),
        ("{{index . 0 | json}}", "{\"id\":\"one\",\"labels\":{\"a\":\"<1>\",\"b\":\"2\"},\"gcPolicy\":null}"),
    ] {
        assert_eq!(run(template).as_deref(), Ok(expected), "{template}");
    }
    assert!(run("json").unwrap().starts_with("[{\"id\":\"one\""));
}

#[test]
fn what_is_wrong_or_not_built_is_named() {
    for (template, expected) in [
        ("{{", "template: :1: unclosed action"),
        ("{{nope}}", "template: :1: function \"nope\" not defined"),
        (
            "{{.ID}}",
            "template: :1: executing \"\" at <.ID>: can't evaluate field ID in type []*client.WorkerInfo",
        ),
        (
            "{{range .}}{{.Nope}}{{end}}",
            "template: :1: executing \"\" at <.Nope>: can't evaluate field Nope in type *client.WorkerInfo",
        ),
        ("{{with .}}{{end}}", "template: :1: \"with\" is not supported"),
        ("{{$x := .}}", "template: :1: variables are not supported"),
        ("{{range .}}", "template: :1: unexpected EOF"),
        ("{{end}}", "template: :1: unexpected {{end}} or {{else}}"),
        ("{{len}}", "template: :1: wrong number of args for len: got 0"),
        (
            "{{index . 5}}",
            "template: :1: executing \"\" at <index>: error calling index: index out of range: 5",
        ),
        ("{{}}", "template: :1: missing value for command"),
        ("{{\"x}}", "template: :1: unclosed action"),
        ("{{(.}}", "template: :1: unclosed left paren"),
        ("{{. .}}", "template: :1: unexpected <.> in command"),
    ] {
        assert_eq!(run(template), Err(expected.to_string()), "{template}");
    }
    let deep = format!("{}{}", "{{if .}}".repeat(100), "{{end}}".repeat(100));
    assert_eq!(run(&deep), Err("template: :1: nested too deeply".into()));
    let parens = format!("{{{{{}.{}}}}}", "(".repeat(2000), ")".repeat(2000));
    assert!(run(&parens).is_err());
}
