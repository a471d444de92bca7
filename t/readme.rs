//! Tests for README.md: it says of every directive what the module's own table says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;

use comet::config::{Contexts, Directive, DIRECTIVES};
use support::config::project_file;

fn read(name: &str) -> String {
    fs::read_to_string(project_file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn contexts(directive: &Directive) -> String {
    let names = [
        (Contexts::HTTP, "http"),
        (Contexts::SERVER, "server"),
        (Contexts::LOCATION, "location"),
        (Contexts::LOCATION_IF, "if in location"),
    ];
    let allowed: Vec<&str> = names
        .into_iter()
        .filter(|(context, _)| directive.contexts.contains(*context))
        .map(|(_, name)| name)
        .collect();
    allowed.join(", ")
}

/// The section of a directive: from its heading to the next heading.
fn section<'a>(readme: &'a str, name: &str) -> Option<&'a str> {
    let heading = format!("### {name}\n");
    let start = readme.find(&heading)? + heading.len();
    let rest = &readme[start..];
    Some(rest.find("\n#").map_or(rest, |end| &rest[..end]))
}

/// The value in a line such as `**Syntax:** \`push_publisher\``, without the marks.
fn field(section: &str, name: &str) -> Option<String> {
    let line = section.lines().find_map(|line| {
        let plain: String = line.chars().filter(|c| !matches!(c, '*' | '`')).collect();
        let plain = plain.trim_start_matches(['-', '|', ' ']).to_owned();
        plain.strip_prefix(name).map(|rest| rest.trim_start_matches([':', '|', ' ']).to_owned())
    })?;
    Some(line.trim_end_matches(['|', ' ', '\\', ';']).trim().to_owned())
}

#[test]
fn every_directive_has_its_section() {
    let readme = read("README.md");
    for directive in DIRECTIVES {
        let name = directive.name;
        let section = section(&readme, name).unwrap_or_else(|| panic!("no section on {name}"));
        let expected = |text: &str| Some(text.replace('`', ""));
        assert_eq!(field(section, "Syntax"), expected(directive.syntax), "{name}");
        assert_eq!(field(section, "Default"), expected(directive.default), "{name}");
        assert_eq!(field(section, "Context"), expected(&contexts(directive)), "{name}");
    }
}

#[test]
fn no_section_is_about_a_directive_that_does_not_exist() {
    let readme = read("README.md");
    for heading in readme.lines().filter_map(|line| line.strip_prefix("### push_")) {
        let name = format!("push_{heading}");
        assert!(DIRECTIVES.iter().any(|directive| directive.name == name), "{name}");
    }
}

#[test]
fn the_pages_have_the_elements_that_scripts_and_tests_rely_on() {
    let page = read("nginx-conf/html/index.html");
    for (tag, id) in [
        ("form", "publish"),
        ("textarea", "message"),
        ("ol", "messages"),
        ("div", "status"),
        ("input", "channel"),
    ] {
        let element = format!("<{tag} id=\"{id}\"");
        assert_eq!(page.matches(&element).count(), 1, "{element}");
    }
}

#[test]
fn the_tests_that_the_documents_name_exist() {
    for (document, least) in [("docs/security.md", 50), ("docs/trust.md", 20)] {
        let page = read(document);
        let named = page.split('`').filter_map(|word| word.split_once(".rs::"));
        let mut count = 0;
        for (file, test) in named {
            let tests = read(&format!("{file}.rs"));
            assert!(tests.contains(&format!("fn {test}(")), "{document}: {file}.rs has no {test}");
            count += 1;
        }
        assert!(count >= least, "{document}: {count} tests");
    }
}

#[test]
fn the_configurations_that_the_readme_names_exist() {
    let readme = read("README.md");
    let named = readme.split(|c: char| c.is_whitespace() || "`()[]\"'".contains(c));
    for path in named.filter(|word| word.starts_with("nginx-conf/") && word.ends_with(".conf")) {
        assert!(project_file(path).exists(), "{path}");
    }
}
