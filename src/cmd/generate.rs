//! The hidden `poetry generate DIR`: man pages and completions, made from the same
//! definition of the command line that parses it.

use clap::Command;
use clap_complete::Shell;
use poetry::error::{Error, reason};
use std::io;
use std::path::{Path, PathBuf};

/// Write the man pages and the shell completions into a folder
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder; `man` and `completions` are made in it
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// The sections of each man page after its options, in roff.
const SECTIONS: [(&str, &str); 5] = [
    ("poetry", include_str!("../../man/more/poetry.roff")),
    ("serve", include_str!("../../man/more/serve.roff")),
    ("proxy", include_str!("../../man/more/proxy.roff")),
    ("fetch", include_str!("../../man/more/fetch.roff")),
    ("transform", include_str!("../../man/more/transform.roff")),
];

/// When the pages last changed, as `man` shows it.
const DATE: &str = "2026-11-26";

/// Writes the pages and completions of `root`, the whole program; returns the exit
/// code.
///
/// # Errors
/// [`Error::Local`] if a file cannot be written.
pub(super) fn run(args: &Args, root: Command) -> Result<u8, Error> {
    write_all(&args.dir, root).map_err(|error| Error::Local {
        subject: args.dir.display().to_string(),
        why: reason(&error),
    })?;
    Ok(0)
}

fn write_all(dir: &Path, root: Command) -> io::Result<()> {
    let mut root = root.disable_help_subcommand(true);

    let completions = dir.join("completions");
    std::fs::create_dir_all(&completions)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut root, "poetry", &completions)?;
    }

    let man = dir.join("man");
    std::fs::create_dir_all(&man)?;
    root.build();
    for (name, sections) in SECTIONS {
        write_page(&man, &root, name, sections)?;
    }
    Ok(())
}

fn write_page(man: &Path, root: &Command, name: &str, sections: &str) -> io::Result<()> {
    let (page, definition) = match root.find_subcommand(name) {
        None => ("poetry".to_string(), root.clone()),
        Some(subcommand) => {
            let page = format!("poetry-{name}");
            (page.clone(), subcommand.clone().display_name(page))
        }
    };

    let mut roff = Vec::new();
    clap_mangen::Man::new(definition)
        .date(DATE)
        .source("poetry")
        .manual("Poetry over TCP")
        .render(&mut roff)?;
    roff.extend_from_slice(sections.as_bytes());
    std::fs::write(man.join(format!("{page}.1")), roff)
}
