//! The channel info bodies that publishers get, equal to NHPM's to the byte.

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

#[cfg(test)]
mod tests {
    use super::*;

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
