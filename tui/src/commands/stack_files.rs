//! Stacks that a campaign file names by the files that hold them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;
use toml::Spanned;

use crate::export;

/// What of a campaign file may name other files.
#[derive(Deserialize)]
struct Peek {
    #[serde(default)]
    search: Search,
}

#[derive(Default, Deserialize)]
struct Search {
    #[serde(default)]
    stacks: BTreeMap<String, Spanned<String>>,
}

/// The text of a campaign file with each file among `search.stacks` replaced by the stack that it holds: what is kept of a
/// campaign depends on no file. A text that is no campaign file comes back as it is; whoever parses it says what is wrong.
pub(super) fn read_in(text: &str, folder: &Path) -> anyhow::Result<String> {
    let Ok(peek) = toml::from_str::<Peek>(text) else { return Ok(text.to_owned()) };
    let mut stacks: Vec<(String, Spanned<String>)> = peek
        .search
        .stacks
        .into_iter()
        .filter(|(_, word)| export::looks_like_a_file(word.get_ref()))
        .collect();
    stacks.sort_by_key(|(_, word)| std::cmp::Reverse(word.span().start));
    let mut text = text.to_owned();
    for (name, word) in stacks {
        let path = folder.join(word.get_ref());
        // A word that names no file stays, and is refused as the text that it then is.
        if !path.exists() {
            continue;
        }
        let stack = export::read(&path.to_string_lossy())
            .with_context(|| format!("search.stacks.{name}"))?;
        let span = word.span();
        text.replace_range(span, &toml::Value::String(stack.to_string()).to_string());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_replaced_by_their_stacks_and_nothing_else_is() {
        let folder = std::env::temp_dir().join(format!("deltafront-stacks-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let stack = "d=32,vocab=256,tied | gdn(h=1,k=16,v=32)+ffn(64)";
        std::fs::write(folder.join("a.toml"), format!("text = {stack:?}")).expect("a file");
        let text = format!(
            "name = \"a.toml\" # ü\n[search]\nstacks = {{ b = \"a.toml\", c = {stack:?}, d = \"none.json\" }}\n"
        );
        let read = read_in(&text, &folder).expect("it is read");
        let expected = text.replacen("b = \"a.toml\"", &format!("b = {stack:?}"), 1);
        assert_eq!(read, expected);
        std::fs::write(folder.join("a.toml"), "text = \"d=0\"").expect("a file");
        let error = format!("{:#}", read_in(&text, &folder).expect_err("it is no stack"));
        assert!(error.starts_with("search.stacks.b: "), "{error}");
        std::fs::remove_dir_all(&folder).expect("it is there");
    }
}
