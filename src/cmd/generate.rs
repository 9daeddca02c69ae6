//! The hidden `poetry generate DIR`: man pages and completions, made from the same
//! definition of the command line that parses it.

mod bash;
mod completions;
mod fish;
mod man;
mod zsh;

use clap::Command;
use completions::Program;
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

fn write_all(dir: &Path, mut root: Command) -> io::Result<()> {
    root.build();

    let completions = dir.join("completions");
    std::fs::create_dir_all(&completions)?;
    let program = Program::of(&root);
    std::fs::write(completions.join("poetry.bash"), bash::script(&program))?;
    std::fs::write(completions.join("_poetry"), zsh::script(&program))?;
    std::fs::write(completions.join("poetry.fish"), fish::script(&program))?;

    let man = dir.join("man");
    std::fs::create_dir_all(&man)?;
    man::write_pages(&man, &root)
}
