//! The arguments after `cargo bench --`. Cargo hands them to both bench programs, so
//! the soak reads them here too: it must not run when only figures are asked for.

/// The names of the parts, as they are given on the command line.
pub const PARTS: [&str; 7] = [
    "hits", "idle", "large", "flight", "memory", "cache", "fetch",
];

/// What to measure and how.
#[derive(Debug, Default)]
pub struct Arguments {
    /// Fewer rounds and smaller sizes.
    pub quick: bool,
    /// Write the results into the repository.
    pub save: bool,
    /// The parts to measure; all of them where this is empty.
    parts: Vec<String>,
}

impl Arguments {
    /// Reads the arguments.
    ///
    /// # Errors
    /// An unknown argument, or `--quick` together with `--save`.
    pub fn parse(args: &[String]) -> Result<Arguments, String> {
        let mut parsed = Arguments::default();

        for arg in args {
            match arg.as_str() {
                "--quick" => parsed.quick = true,
                "--save" => parsed.save = true,
                part if PARTS.contains(&part) => parsed.parts.push(part.to_string()),
                unknown => {
                    return Err(format!(
                        "{unknown}: unknown argument; wanted --quick, --save or a part: {}",
                        PARTS.join(", ")
                    ));
                }
            }
        }

        if parsed.quick && parsed.save {
            return Err("figures measured with --quick are too rough to --save".into());
        }
        Ok(parsed)
    }

    /// Whether this part is to be measured.
    pub fn selects(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|selected| selected == part)
    }
}
