//! What the operator may say: the table of directives, and what their values mean.
//!
//! Words arrive as nginx has split them. What was said is kept as said ([`MainConf`], [`LocationConf`]), blocks inherit
//! by [`LocationConf::merge`], and [`LocationConf::settings`] is what was meant.

mod directives;
mod location;
mod value;

use thiserror::Error;

pub use directives::{Apply, Args, Contexts, Directive, DIRECTIVES};
pub use location::{Concurrency, LocationConf, Park, Role, Settings, Valued};

/// Memory for messages and channels if nothing is said, in bytes.
const DEFAULT_ZONE_SIZE: u64 = 32 << 20;

/// A zone of fewer pages has no room for anything but its own bookkeeping.
const MIN_ZONE_PAGES: u64 = 8;

/// Why a configuration is refused. nginx adds the file and the line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// Said twice in one block.
    #[error("\"{directive}\" directive is duplicate: it is allowed once in a block")]
    Duplicate {
        /// The directive.
        directive: &'static str,
    },
    /// A value that the directive does not take.
    #[error("invalid value \"{value}\" in \"{directive}\": allowed is {allowed}")]
    Value {
        /// The directive.
        directive: &'static str,
        /// What was said.
        value: String,
        /// What could have been said.
        allowed: &'static str,
    },
    /// More or fewer values than the directive takes.
    #[error("invalid number of values in \"{directive}\": allowed is {allowed}")]
    Count {
        /// The directive.
        directive: &'static str,
        /// What could have been said.
        allowed: &'static str,
    },
    /// Two directives that exclude each other in one block.
    #[error("\"{directive}\" cannot be in the same block as \"{other}\": allowed is {allowed}")]
    Conflict {
        /// The directive that came second.
        directive: &'static str,
        /// The one that was there.
        other: &'static str,
        /// What could have been said.
        allowed: &'static str,
    },
    /// The bounds of the message buffer contradict each other after inheritance.
    #[error(
        "\"push_max_message_buffer_length\" is {max}, below \"push_min_message_buffer_length\", which is {min}: \
         allowed is a maximum of at least the minimum (\"push_store_messages off\" sets both to 0)"
    )]
    MaxBelowMin {
        /// The maximum, in messages.
        max: u64,
        /// The minimum, in messages.
        min: u64,
    },
}

/// Something that loads and may not be what the operator meant. nginx adds the file and the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Warning {
    /// The zone was made larger than said.
    #[error("\"{directive}\" is too small and was raised to the least that works, {min} bytes")]
    ZoneRaised {
        /// The directive as the operator called it.
        directive: &'static str,
        /// The size that it has now, in bytes.
        min: u64,
    },
    /// A buffer length that is without effect.
    #[error("\"push_store_messages off\" overrides \"{directive}\" in the same block: no messages are stored")]
    StoreOffWins {
        /// The directive without effect.
        directive: &'static str,
    },
}

/// What was said at the level of `http`, for all of nginx.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MainConf {
    /// Size of the shared memory zone in bytes, with the directive that said so.
    zone_size: Option<(u64, &'static str)>,
    /// How many channels there may be.
    max_channels: Option<u64>,
    /// The file for snapshots.
    snapshot: Option<Vec<u8>>,
}

impl MainConf {
    /// The file in which messages outlive a restart: absolute, or relative to nginx's prefix.
    pub fn snapshot(&self) -> Option<&[u8]> {
        self.snapshot.as_deref()
    }

    /// The size of the zone in bytes: whole pages, and enough of them, with a warning if it had to be raised for that.
    pub fn zone_size(&self, page_size: usize) -> (u64, Option<Warning>) {
        let page = (page_size as u64).max(1);
        let min = page.saturating_mul(MIN_ZONE_PAGES);
        match self.zone_size {
            Some((size, directive)) if size < min => {
                (min, Some(Warning::ZoneRaised { directive, min }))
            }
            said => {
                let size = said.map_or(DEFAULT_ZONE_SIZE, |(size, _)| size);
                // A size so close to 2^64 that it has no next page is cut to the page below, and cannot be had anyway.
                let size = size.checked_next_multiple_of(page).unwrap_or(size - size % page);
                (size.max(min), None)
            }
        }
    }

    /// How many channels there may be; 0 for any number.
    pub fn max_channels(&self) -> u32 {
        u32::try_from(self.max_channels.unwrap_or(0)).unwrap_or(u32::MAX)
    }

    /// Sets the size of the zone by one of the directive's two names.
    fn set_zone_size(
        &mut self,
        directive: &'static str,
        args: &[&[u8]],
    ) -> Result<(), ConfigError> {
        match self.zone_size {
            Some((_, said)) if said == directive => Err(ConfigError::Duplicate { directive }),
            Some((_, other)) => Err(ConfigError::Conflict {
                directive,
                other,
                allowed: "one of them, for both name the same setting",
            }),
            None => {
                self.zone_size = Some((value::SIZE.read(directive, args)?, directive));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 4096;

    fn main_conf(directive: &'static str, size: &str) -> Result<MainConf, ConfigError> {
        let mut conf = MainConf::default();
        conf.set_zone_size(directive, &[size.as_bytes()]).map(|()| conf)
    }

    fn size(said: &str) -> Option<(u64, Option<Warning>)> {
        main_conf("push_shared_memory_size", said).ok().map(|conf| conf.zone_size(PAGE))
    }

    #[test]
    fn the_zone_has_32_megabytes_by_default() {
        assert_eq!(MainConf::default().zone_size(PAGE), (33_554_432, None));
    }

    #[test]
    fn the_zone_is_as_large_as_said_in_whole_pages() {
        assert_eq!(size("32M"), Some((33_554_432, None)));
        assert_eq!(size("2g"), Some((2_147_483_648, None)));
        assert_eq!(size("100000"), Some((102_400, None)));
        assert_eq!(size("32768"), Some((32_768, None)));
    }

    #[test]
    fn a_zone_of_less_than_8_pages_is_raised_with_a_warning() {
        let warning = Warning::ZoneRaised { directive: "push_shared_memory_size", min: 32_768 };
        assert_eq!(size("32767"), Some((32_768, Some(warning))));
        assert_eq!(size("0"), Some((32_768, Some(warning))));
        assert_eq!(
            warning.to_string(),
            "\"push_shared_memory_size\" is too small and was raised to the least that works, 32768 bytes"
        );
    }

    #[test]
    fn odd_page_sizes_do_no_harm() {
        let zone_size = Some((u64::MAX, "push_shared_memory_size"));
        let conf = MainConf { zone_size, ..MainConf::default() };
        assert_eq!(conf.zone_size(0), (u64::MAX, None));
        assert_eq!(conf.zone_size(PAGE).0, u64::MAX - 4095);
        assert_eq!(MainConf::default().zone_size(usize::MAX).0, u64::MAX);
    }

    #[test]
    fn there_may_be_any_number_of_channels_unless_said() {
        assert_eq!(MainConf::default().max_channels(), 0);
        let said = |max| MainConf { max_channels: Some(max), ..MainConf::default() };
        assert_eq!(said(7).max_channels(), 7);
        assert_eq!(said(u64::MAX).max_channels(), u32::MAX);
    }

    #[test]
    fn the_two_names_of_the_zone_size_exclude_each_other() {
        let names = ["push_max_reserved_memory", "push_shared_memory_size"];
        for (first, second) in [(names[0], names[1]), (names[1], names[0])] {
            let error = main_conf(first, "1M")
                .and_then(|mut conf| conf.set_zone_size(second, &[b"1M"]))
                .map_err(|error| error.to_string());
            assert_eq!(
                error,
                Err(format!(
                    "\"{second}\" cannot be in the same block as \"{first}\": \
                     allowed is one of them, for both name the same setting"
                ))
            );
        }
    }
}
