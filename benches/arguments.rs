//! The arguments after `cargo bench --`. Cargo hands them to both bench programs, so
//! the soak reads them here too: it must not run when only figures are asked for.

/// The names of the parts, as they are given on the command line.
pub const PARTS: [&str; 13] = [
    "hits", "line", "miss", "idle", "large", "flight", "live", "memory", "cache", "fetch", "start",
    "store", "cores",
];

/// What to measure and how.
#[derive(Debug, Default)]
pub struct Arguments {
    /// Fewer rounds and smaller sizes.
    pub quick: bool,
    /// Write the results into the repository.
    pub save: bool,
    /// The cores for the proxy in the `cores` part; all where this is `None`.
    pub cores: Option<Vec<usize>>,
    /// The parts to measure; all of them where this is empty.
    parts: Vec<String>,
}

impl Arguments {
    /// Reads the arguments.
    ///
    /// # Errors
    /// An unknown argument, a malformed list of cores, or `--quick` together with
    /// `--save`.
    pub fn parse(args: &[String]) -> Result<Arguments, String> {
        let mut parsed = Arguments::default();

        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--cores" => {
                    let list = args.next().and_then(|list| parse_cores(list));
                    let wanted = "--cores wants a list of core numbers like 1,3-5";
                    parsed.cores = Some(list.ok_or(wanted)?);
                }
                "--quick" => parsed.quick = true,
                "--save" => parsed.save = true,
                part if PARTS.contains(&part) => parsed.parts.push(part.to_string()),
                unknown => {
                    let parts = PARTS.join(", ");
                    return Err(format!(
                        "{unknown}: unknown argument; \
                         wanted --quick, --save, --cores LIST or a part: {parts}"
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

/// The cores in a list like `1,3-5`, as `taskset -c` takes it; `None` if malformed.
fn parse_cores(list: &str) -> Option<Vec<usize>> {
    let mut cores = Vec::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        cores.extend(first.parse::<usize>().ok()?..=last.parse().ok()?);
    }
    (!cores.is_empty()).then_some(cores)
}
