//! JSONP: the function that a client names, and scripts with whatever a reply says.
#![no_main]

use comet::poll::{array_of, callback, has_callback, script};
use comet::reply::Reply;
use fuzz::lines;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let [args, text] = lines(data);
    let (args, text) = (args.unwrap_or_default(), text.unwrap_or_default());
    let name = match callback(args) {
        Ok(name) => name,
        Err(error) => {
            assert!(has_callback(args));
            assert_eq!(error.reply().status, 400);
            return;
        }
    };
    assert!(!name.is_empty() && name.len() <= 128);
    assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_$.[]".contains(&byte)));
    let encoded: String = name.bytes().map(|byte| format!("%{byte:02x}")).collect();
    assert_eq!(callback(format!("x=1&callback={encoded}").as_bytes()).as_ref(), Ok(&name));

    for status in [200, 304, 403, 404, 409, 410] {
        let array = array_of(&Reply::text(status, text.to_vec()));
        assert!(!array.iter().any(|byte| b"<>&".contains(byte) || *byte < b' '));
        let parsed: Value = serde_json::from_slice(&array).unwrap();
        let object = &parsed.as_array().unwrap()[0];
        if let Some(reason) = object.get("reason") {
            assert_eq!(reason.as_str(), Some(&*String::from_utf8_lossy(text)));
        }
        let code = script(&name, &array);
        assert_eq!(code, [b"/**/", name.as_bytes(), b"(", &array, b");\n"].concat());
    }
});
