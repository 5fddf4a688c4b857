//! YAML, as far as a config needs it: maps, lists and what JSON has beside them.

use serde_json::Value;

/// A value as YAML, indented by so many blanks.
pub(super) fn text(value: &Value, indent: usize) -> String {
    let blanks = " ".repeat(indent);
    let lines: Vec<String> = match value {
        Value::Object(map) if !map.is_empty() => {
            let line = |(key, value)| format!("{blanks}{key}:{}", after(value, indent + 2));
            map.iter().map(line).collect()
        }
        // the first key of a map stands behind its dash
        Value::Array(list) if !list.is_empty() => {
            let line = |value| format!("{blanks}- {}", text(value, indent + 2).trim_start());
            list.iter().map(line).collect()
        }
        // JSON is YAML
        scalar => vec![format!("{blanks}{scalar}\n")],
    };
    lines.concat()
}

/// What stands after a key and its colon.
fn after(value: &Value, indent: usize) -> String {
    let is_nested = match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => false,
    };
    if is_nested { format!("\n{}", text(value, indent)) } else { format!(" {}", text(value, 0)) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn maps_and_lists_stand_below_each_other() {
        let value = json!({
            "model": { "width": 64, "scaling": null, "name": "a: b" },
            "blocks": [{ "kind": "mlp", "size": 3 }, { "kind": "none" }],
            "empty": [],
        });
        let expected = "blocks:\n  - kind: \"mlp\"\n    size: 3\n  - kind: \"none\"\nempty: []\n\
                        model:\n  name: \"a: b\"\n  scaling: null\n  width: 64\n";
        assert_eq!(super::text(&value, 0), expected);
    }
}
