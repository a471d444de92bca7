//! Strings in JSON (RFC 8259, section 7).

/// Appends `text` to `json` as a string, in quotes.
///
/// The line separators U+2028 and U+2029, which JSON allows but older JavaScript does not, are escaped too.
pub fn push_string(json: &mut String, text: &str) {
    json.push('"');
    let mut rest = text;
    while let Some((before, special)) =
        rest.find(is_special).and_then(|at| rest.split_at_checked(at))
    {
        json.push_str(before);
        let mut characters = special.chars();
        match characters.next() {
            Some('"') => json.push_str("\\\""),
            Some('\\') => json.push_str("\\\\"),
            Some('\n') => json.push_str("\\n"),
            Some('\r') => json.push_str("\\r"),
            Some('\t') => json.push_str("\\t"),
            Some(other) => json.push_str(&format!("\\u{:04x}", u32::from(other))),
            None => {}
        }
        rest = characters.as_str();
    }
    json.push_str(rest);
    json.push('"');
}

/// The same value, written so that it may stand in a script in a page: there is no `<`, `>` or `&` in it, so that no
/// string can end the script, begin a comment, or be taken for markup in any other way.
///
/// These characters stand in strings only, where an escape means the same.
pub fn for_script(json: &str) -> String {
    let mut script = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '<' => script.push_str("\\u003c"),
            '>' => script.push_str("\\u003e"),
            '&' => script.push_str("\\u0026"),
            other => script.push(other),
        }
    }
    script
}

/// Whether a character must not stand in a string as it is.
fn is_special(character: char) -> bool {
    matches!(character, '\0'..='\x1f' | '"' | '\\' | '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &str) -> String {
        let mut json = String::new();
        push_string(&mut json, text);
        json
    }

    #[test]
    fn text_stays_as_it_is() {
        assert_eq!(string(""), r#""""#);
        assert_eq!(string("a/b ü € 😀 \u{7f}"), "\"a/b ü € 😀 \u{7f}\"");
    }

    #[test]
    fn quotes_and_backslashes_are_escaped() {
        assert_eq!(string(r#"""#), r#""\"""#);
        assert_eq!(string(r#"a"b\c"#), r#""a\"b\\c""#);
        assert_eq!(string(r"\\"), r#""\\\\""#);
        assert_eq!(string(r"\u0041"), r#""\\u0041""#);
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(string("\r\n\t"), r#""\r\n\t""#);
        assert_eq!(string("\0a\u{1f}\u{8}"), r#""\u0000a\u001f\u0008""#);
    }

    #[test]
    fn in_a_script_nothing_is_markup() {
        let hostile = "</script><!-- ]]> &lt; \\< a";
        assert_eq!(
            for_script(&string(hostile)),
            r#""\u003c/script\u003e\u003c!-- ]]\u003e \u0026lt; \\\u003c a""#
        );
        assert_eq!(for_script(r#"{"a":[1,"b"]}"#), r#"{"a":[1,"b"]}"#);
    }

    #[test]
    fn line_separators_of_javascript_are_escaped() {
        assert_eq!(
            string("\u{2027}\u{2028}\u{2029}\u{202a}"),
            "\"\u{2027}\\u2028\\u2029\u{202a}\""
        );
    }
}
