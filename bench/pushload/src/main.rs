//! pushload: load generator for HTTP push (Comet) servers. See `pushload --help`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bytes;
mod cli;
mod client;
mod coord;
mod floor;
mod hist;
mod http;
mod icomet;
mod json;
mod msg;
mod plan;
mod probe;
mod procfs;
mod publisher;
mod report;
mod shared;
mod sse;
mod sys;
mod template;
mod verify;
mod ws;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let inv = match cli::parse(&args) {
        Ok(cli::Parsed::Help) => {
            print!("{}", cli::HELP);
            return ExitCode::SUCCESS;
        }
        Ok(cli::Parsed::Run(i)) => i,
        Err(e) => {
            eprintln!("pushload: {e}");
            return ExitCode::from(2);
        }
    };
    let outcome = coord::run(&inv.run);
    if inv.json {
        println!("{}", outcome.to_json());
    } else {
        print!("{}", outcome.to_text());
    }
    if outcome.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
