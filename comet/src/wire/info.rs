//! The channel info bodies that publishers get, equal to NHPM's to the byte.

use super::json;

/// What a publisher is told about its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelInfo {
    /// Messages in the queue.
    pub messages: u64,
    /// Seconds since the last subscriber request; −1 if there never was one.
    pub requested: i64,
    /// Subscribers that are waiting, over all workers.
    pub subscribers: u64,
}

/// How a channel info body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Three lines for people.
    Text,
    /// One JSON object.
    Json,
    /// One `channel` element.
    Xml,
    /// One YAML document.
    Yaml,
}

/// Writes `info` as a body. Lines end in CR LF; the text form's last line does not end.
pub fn render(info: &ChannelInfo, format: Format) -> Vec<u8> {
    let ChannelInfo { messages, requested, subscribers } = info;
    let body = match format {
        Format::Text => format!(
            "queued messages: {messages}\r\n\
             last requested: {requested} sec. ago (-1=never)\r\n\
             active subscribers: {subscribers}"
        ),
        Format::Json => format!(
            "{{\"messages\": {messages}, \"requested\": {requested}, \
             \"subscribers\": {subscribers} }}"
        ),
        Format::Xml => format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\" ?>\r\n\
             <channel>\r\n\
             \x20 <messages>{messages}</messages>\r\n\
             \x20 <requested>{requested}</requested>\r\n\
             \x20 <subscribers>{subscribers}</subscribers>\r\n\
             </channel>"
        ),
        Format::Yaml => format!(
            "---\r\n\
             messages: {messages}\r\n\
             requested: {requested}\r\n\
             subscribers: {subscribers}\r\n\
             \r\n"
        ),
    };
    body.into_bytes()
}

/// Writes what is known of several channels: each with its name before the fields of [`render`], as a list of the format.
pub fn render_all(channels: &[(&[u8], ChannelInfo)], format: Format) -> Vec<u8> {
    let mut list = String::new();
    for (place, (name, info)) in channels.iter().enumerate() {
        let ChannelInfo { messages, requested, subscribers } = info;
        let name = String::from_utf8_lossy(name);
        let is_first = place == 0;
        match format {
            Format::Text => list.push_str(&format!(
                "{}channel: {}\r\n\
                 queued messages: {messages}\r\n\
                 last requested: {requested} sec. ago (-1=never)\r\n\
                 active subscribers: {subscribers}",
                if is_first { "" } else { "\r\n\r\n" },
                name.replace(char::is_control, " "),
            )),
            Format::Json => {
                list.push_str(if is_first { "[" } else { ", " });
                list.push_str("{\"channel\": ");
                json::push_string(&mut list, &name);
                list.push_str(&format!(
                    ", \"messages\": {messages}, \"requested\": {requested}, \
                     \"subscribers\": {subscribers} }}"
                ));
            }
            Format::Xml => list.push_str(&format!(
                "<channel>\r\n\
                 \x20 <name>{}</name>\r\n\
                 \x20 <messages>{messages}</messages>\r\n\
                 \x20 <requested>{requested}</requested>\r\n\
                 \x20 <subscribers>{subscribers}</subscribers>\r\n\
                 </channel>\r\n",
                in_xml(&name),
            )),
            Format::Yaml => {
                list.push_str("- channel: ");
                push_yaml(&mut list, &name);
                list.push_str(&format!(
                    "\r\n  messages: {messages}\r\n  requested: {requested}\r\n  \
                     subscribers: {subscribers}\r\n"
                ));
            }
        }
    }
    let body = match format {
        Format::Text => list,
        Format::Json if list.is_empty() => "[]".to_owned(),
        Format::Json => list + "]",
        Format::Xml => format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\" ?>\r\n<channels>\r\n{list}</channels>"
        ),
        Format::Yaml => format!("---\r\n{list}\r\n"),
    };
    body.into_bytes()
}

/// Appends `text` to `yaml` as a string: that of JSON, but for characters that must not stand in a document of YAML 1.2.
fn push_yaml(yaml: &mut String, text: &str) {
    let mut string = String::new();
    json::push_string(&mut string, text);
    for character in string.chars() {
        match character {
            '\u{7f}'..='\u{9f}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                yaml.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            _ => yaml.push(character),
        }
    }
}

/// Text for XML 1.0, which has no way to write most control characters.
fn in_xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            _ if character.is_control() => escaped.push('\u{fffd}'),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_channels_are_a_list_with_their_names() {
        let list = [(&b"a"[..], INFO), (b"<\"\n\xff&", ChannelInfo { requested: -1, ..INFO })];
        let all = |format| String::from_utf8_lossy(&render_all(&list, format)).into_owned();
        assert_eq!(
            all(Format::Json),
            "[{\"channel\": \"a\", \"messages\": 3, \"requested\": 12, \"subscribers\": 1 }, \
             {\"channel\": \"<\\\"\\n\u{fffd}&\", \"messages\": 3, \"requested\": -1, \"subscribers\": 1 }]"
        );
        assert_eq!(
            all(Format::Text),
            "channel: a\r\nqueued messages: 3\r\nlast requested: 12 sec. ago (-1=never)\r\n\
             active subscribers: 1\r\n\r\nchannel: <\" \u{fffd}&\r\nqueued messages: 3\r\n\
             last requested: -1 sec. ago (-1=never)\r\nactive subscribers: 1"
        );
        assert!(all(Format::Xml).contains("  <name>&lt;\"\u{fffd}\u{fffd}&amp;</name>\r\n"));
        assert!(all(Format::Yaml).starts_with("---\r\n- channel: \"a\"\r\n  messages: 3\r\n"));
        assert_eq!(render_all(&[], Format::Json), b"[]");
    }

    const INFO: ChannelInfo = ChannelInfo { messages: 3, requested: 12, subscribers: 1 };

    fn rendered(format: Format) -> String {
        String::from_utf8_lossy(&render(&INFO, format)).into_owned()
    }

    #[test]
    fn text() {
        assert_eq!(
            rendered(Format::Text),
            "queued messages: 3\r\nlast requested: 12 sec. ago (-1=never)\r\nactive subscribers: 1"
        );
    }

    #[test]
    fn json() {
        assert_eq!(
            rendered(Format::Json),
            "{\"messages\": 3, \"requested\": 12, \"subscribers\": 1 }"
        );
    }

    #[test]
    fn xml() {
        assert_eq!(
            rendered(Format::Xml),
            concat!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\" ?>\r\n",
                "<channel>\r\n",
                "  <messages>3</messages>\r\n",
                "  <requested>12</requested>\r\n",
                "  <subscribers>1</subscribers>\r\n",
                "</channel>",
            )
        );
    }

    #[test]
    fn yaml() {
        assert_eq!(
            rendered(Format::Yaml),
            "---\r\nmessages: 3\r\nrequested: 12\r\nsubscribers: 1\r\n\r\n"
        );
    }

    #[test]
    fn extremes_are_written_in_full() {
        let info = ChannelInfo { messages: u64::MAX, requested: -1, subscribers: 0 };
        assert_eq!(
            render(&info, Format::Json),
            b"{\"messages\": 18446744073709551615, \"requested\": -1, \"subscribers\": 0 }"
        );
    }
}
