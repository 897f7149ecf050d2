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
        ("{{with index . 0}}{{.Labels.c}}{{index .Labels \"c\"}}|{{end}}", "<no value>|"),
        ("{{range .}}{{.Labels}}\n{{end}}", "map[a:<1> b:2]\nmap[a:<1> b:2]\n"),
        ("{{range .}}{{if .Note}}x{{else}}-{{end}}{{end}}", "--"),
        ("{{range .}}{{if eq .ID \"one\"}}1{{else if .Note}}x{{else}}?{{end}}{{end}}", "1?"),
        ("{{range .}}{{with .ID}}{{.}}{{end}}{{with .Note}}x{{else}}-{{end}}{{end}}", "one-two-"),
        ("{{range (index . 0).GCPolicy}}x{{else}}none{{end}}", "none"),
        ("a {{- /* nothing */ -}} b", "ab"),
        ("a {{- `x` -}} b", "axb"),
        ("a\n{{-\n`x`\n-}}\nb {{-1}}", "axb -1"),
        ("{{\"}}\"}}{{`\\t`}}{{\"\\u00e4\\n\"}}", "}}\\tä\n"),
        ("{{. | len}}", "2"),
        ("{{(index . 0).ID | json}}", "\"one\""),
        ("{{(index . 0).ID | upper | lower | title}}", "One"),
        ("{{join (split \"a-b\" \"-\") \", \"}}{{pad \"x\" 1 2}}|{{truncate \"äbc\" 2}}", "a, b x  |äb"),
        ("{{and 1 (not 0)}}{{or 0 \"\" 3}}{{ne 1 2}}{{lt 1 2}}{{ge \"a\" \"b\"}}", "true3truetruefalse"),
        ("{{if and (index . 0).Note (index . 5)}}x{{end}}", ""),
        ("{{print 1 \"a\"}}{{println \"b\" 2}}", "1ab 2\n"),
        ("{{index . 0 | json}}", "{\"id\":\"one\",\"labels\":{\"a\":\"<1>\",\"b\":\"2\"},\"gcPolicy\":null}"),
    ] {
        assert_eq!(run(template).as_deref(), Ok(expected), "{template}");
    }
    assert!(run("json").unwrap().starts_with("[{\"id\":\"one\""));
}

#[test]
fn headers_stay_as_they_are() {
    let names = Value::Map([("Name".to_string(), "NAME".into())].into());
    let header = Template::parse("{{json .Name}}\t{{lower .Name}}\t{{.None}}").unwrap();
    assert_eq!(header.execute_header(&names).unwrap(), "NAME\tNAME\t<no value>");
}

#[test]
fn what_is_wrong_or_not_built_is_named() {
    for (template, expected) in [
        ("{{", "1: unclosed action"),
        ("a\n{{nope}}", "2: function \"nope\" not defined"),
        ("{{printf 1}}", "1: \"printf\" is not supported"),
        ("{{.ID}}", "1:2: executing \"\" at <.ID>: can't evaluate field ID in type []*client.WorkerInfo"),
        (
            "{{range .}}\n {{.Nope}}{{end}}",
            "2:3: executing \"\" at <.Nope>: can't evaluate field Nope in type *client.WorkerInfo",
        ),
        (
            "{{range .}}{{.ID.Nope}}{{end}}",
            "1:16: executing \"\" at <.ID.Nope>: can't evaluate field Nope in type string",
        ),
        ("{{define \"x\"}}{{end}}", "1: \"define\" is not supported"),
        ("{{$x := .}}", "1: variables are not supported"),
        ("{{range .}}", "1: unexpected EOF"),
        ("{{if .}}{{else}}{{else}}{{end}}", "1: expected end; found {{else}}"),
        ("{{end}}", "1: unexpected {{end}}"),
        ("{{len}}", "1:2: executing \"\" at <len>: wrong number of args for len: want 1 got 0"),
        ("{{index . 5}}", "1:2: executing \"\" at <index . 5>: error calling index: index out of range: 5"),
        (
            "{{upper \"a long text of more\" 7}}",
            "1:2: executing \"\" at <upper \"a long text o...>: wrong number of args for upper: want 1 got 2",
        ),
        ("{{}}", "1: missing value for command"),
        ("{{|}}", "1: missing value for command"),
        ("{{. |}}", "1: missing value for command"),
        ("{{\"x}}", "1: unclosed action"),
        ("{{(.}}", "1: unclosed left paren"),
        ("{{.)}}", "1: unexpected <)> in command"),
        ("{{. .}}", "1: unexpected <.> in command"),
    ] {
        assert_eq!(run(template), Err(format!("template: :{expected}")), "{template}");
    }
    let deep = format!("{}{}", "{{if .}}".repeat(100), "{{end}}".repeat(100));
    assert_eq!(run(&deep), Err("template: :1: nested too deeply".into()));
    let parens = format!("{{{{{}.{}}}}}", "(".repeat(2000), ")".repeat(2000));
    assert!(run(&parens).is_err());
    for cut in ["{{\"\\", "{{`", "{{.A.", "{{- -", "{{-}}", "{{ä}}", "{{\"ä\\"] {
        assert!(run(cut).is_err(), "{cut}");
    }
}
