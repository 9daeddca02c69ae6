//! The hidden `poetry generate DIR`: man pages and completions from the very definitions that parse.

use crate::cmd::command;
use clap_complete::Shell;
use poetry::error::{Error, reason};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Write the man pages and the shell completions into a folder
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder; `man` and `completions` are made in it
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// What the man pages say beside the options: (command, sections in roff).
const MORE: [(&str, &str); 5] = [
    ("poetry", include_str!("../../man/more/poetry.roff")),
    ("serve", include_str!("../../man/more/serve.roff")),
    ("proxy", include_str!("../../man/more/proxy.roff")),
    ("fetch", include_str!("../../man/more/fetch.roff")),
    ("transform", include_str!("../../man/more/transform.roff")),
];

/// The day of the last change to the pages, as `man` shows it.
const DATE: &str = "2026-11-26";

/// Writes everything.
pub fn run(args: &Args) -> Result<ExitCode, Error> {
    let local = |e: std::io::Error| Error::Local {
        subject: args.dir.display().to_string(),
        why: reason(&e),
    };
    write_all(&args.dir).map_err(local)?;
    Ok(ExitCode::SUCCESS)
}

fn write_all(dir: &Path) -> std::io::Result<()> {
    let (man, completions) = (dir.join("man"), dir.join("completions"));
    std::fs::create_dir_all(&man)?;
    std::fs::create_dir_all(&completions)?;
    let mut root = command(None).disable_help_subcommand(true);
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut root, "poetry", &completions)?;
    }
    root.build();
    for (name, more) in MORE {
        let (page, definition) = match root.find_subcommand(name) {
            None => ("poetry".to_string(), root.clone()),
            Some(sub) => (
                format!("poetry-{name}"),
                sub.clone().display_name(format!("poetry-{name}")),
            ),
        };
        let mut roff = Vec::new();
        clap_mangen::Man::new(definition)
            .date(DATE)
            .source("poetry")
            .manual("Poetry over TCP")
            .render(&mut roff)?;
        roff.extend_from_slice(more.as_bytes());
        std::fs::write(man.join(format!("{page}.1")), roff)?;
    }
    Ok(())
}
