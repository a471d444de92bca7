//! Arguments in query strings.
#![no_main]

use comet::wire::query::{argument, decode};
use fuzz::lines;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [name, args] = lines(data);
    let (name, args) = (name.unwrap_or_default(), args.unwrap_or_default());

    // What was encoded comes back, whatever it is.
    let encoded: Vec<u8> =
        data.iter().flat_map(|byte| format!("%{byte:02X}").into_bytes()).collect();
    assert_eq!(decode(&encoded).as_deref(), Some(data));
    if let Some(decoded) = decode(args) {
        assert!(decoded.len() <= args.len());
        let percent_signs = args.iter().filter(|byte| **byte == b'%').count();
        assert_eq!(decoded.len(), args.len() - 2 * percent_signs);
    } else {
        assert!(args.contains(&b'%'));
    }

    let is_name = !name.iter().any(|byte| b"&=".contains(byte));
    match argument(args, name) {
        Some(value) => {
            assert!(is_name && !value.contains(&b'&'));
            let said = [name, b"=", value].concat();
            let bare =
                value.is_empty() && args.split(|byte| *byte == b'&').any(|part| part == name);
            assert!(bare || args.windows(said.len()).any(|part| part == said));
        }
        None if is_name => {
            let later = [args, b"&", name, b"=", b"value"].concat();
            assert_eq!(argument(&later, name), Some(&b"value"[..]));
        }
        None => {}
    }
});
