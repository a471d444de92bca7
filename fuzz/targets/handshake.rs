//! WebSocket handshakes.
#![no_main]

use comet::websocket::{accept, is_handshake, Offer};
use comet::wire::http::is_field_value;
use fuzz::lines;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [version, key, protocol, other_protocol, extension, other_extension, upgrade, connection] =
        lines(data);
    let offer = Offer {
        version,
        key,
        protocols: protocol.into_iter().chain(other_protocol).collect(),
        extensions: extension.into_iter().chain(other_extension).collect(),
        http_1_1: true,
    };
    let (plain, compressed) = (accept(&offer, false), accept(&offer, true));
    assert_eq!(plain.is_ok(), compressed.is_ok());
    for accepted in [&plain, &compressed] {
        let reply = match accepted {
            Ok(accepted) => accepted.reply(),
            Err(error) => error.reply(),
        };
        assert_eq!(reply.status == 101, accepted.is_ok());
        assert!(reply.headers.iter().all(|(_, value)| is_field_value(value)));
    }
    if let (Ok(plain), Ok(compressed)) = (plain, compressed) {
        assert_eq!(plain.deflate, None);
        assert_eq!(plain.protocol, compressed.protocol);
        if let Some(deflate) = compressed.deflate {
            assert!((9..=15).contains(&deflate.window_bits));
        }
    }
    assert!(accept(&Offer { http_1_1: false, ..offer }, true).is_err());
    is_handshake(upgrade, connection);
});
