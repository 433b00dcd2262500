//! `weft apply`, `delete`, `rollback`, `diff` and `validate`: changes to the mesh, made or only shown.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use weft_config::findings::Findings;
use weft_config::limits;
use weft_config::operator::{ChangeOptions, ChangeResult, Operator};
use weft_config::resources::{
    FilesError, InvalidRules, Key, Kind, Resource, Set, SourceFile, parse, parse_with, read_files,
};
use weft_config::settings::DurationText;
use weft_config::status::{Condition, ConditionStatus, ConditionType, ParentStatus};

use crate::context::{ContextFlags, refused};
use crate::failure::{Code, Failure};
use crate::output::{Format, note, print_or, printable, text_out};
use crate::process;

/// Applies resources as one revision, and waits until the sidecars run it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    weft apply -f mesh.yaml -m 'split orders 90/10'\n  \
    weft apply -f mesh/ --dry-run\n  \
    weft apply -f shop/ --prune -n shop --dry-run\n  \
    kubectl get httproute -o yaml | weft apply -f - --drop-invalid-rules\n\n\
    Exit code 1 if a sidecar refuses the revision or does not answer in time, 65 if it is invalid;\n\
    an invalid change changes nothing.\n\
    Every field of every kind, and what holds by default: docs/resources/KIND.md, such as\n\
    docs/resources/AuthorizationPolicy.md.")]
pub struct Apply {
    #[command(flatten)]
    files: Files,
    /// Delete resources that the files lack, in the namespaces of -n; a MeshConfig is never deleted
    #[arg(long, requires = "namespace")]
    prune: bool,
    /// With --prune: where to delete; may be repeated
    #[arg(short, long, value_name = "NAMESPACE", requires = "prune")]
    namespace: Vec<String>,
    #[command(flatten)]
    how: ChangeFlags,
}

/// Deletes resources as one revision.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    weft delete HTTPRoute/shop/orders-split\n  \
    weft delete httproute orders-split -n shop\n  \
    weft delete -f old.yaml\n\n\
    All of it is deleted, or nothing: exit code 1 if one does not exist.")]
pub struct Delete {
    /// What to delete: KIND/NAMESPACE/NAME each, or KIND and NAMEs with -n
    #[arg(
        value_name = "RESOURCE",
        required_unless_present = "file",
        conflicts_with = "file"
    )]
    resources: Vec<String>,
    /// Namespace of the resources named by KIND and NAME
    #[arg(short, long, value_name = "NAMESPACE", conflicts_with = "file")]
    namespace: Option<String>,
    /// Delete the resources in this file or directory, or - for stdin; may be repeated
    #[arg(short, long = "file", value_name = "FILE")]
    file: Vec<PathBuf>,
    #[command(flatten)]
    how: ChangeFlags,
}

/// Makes the resources of an earlier revision a new one.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  weft get revisions\n  weft rollback 7 --dry-run\n  weft rollback 7"
)]
pub struct Rollback {
    /// Number of the revision
    revision: u64,
    #[command(flatten)]
    how: ChangeFlags,
}

/// Shows what applying would change: exit code 0 nothing, 1 something.
#[derive(Debug, Args)]
pub struct Diff {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    context: ContextFlags,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Checks resources without a config service.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  weft validate -f mesh.yaml\n\n\
    Knows only the files given; `weft diff` also knows what is in force.\n\
    Every field of every kind, and what holds by default: docs/resources/KIND.md.")]
pub struct Validate {
    #[command(flatten)]
    files: Files,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Args)]
struct Files {
    /// File or directory with resources, or - for stdin; may be repeated
    #[arg(short, long = "file", required = true, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Leave rules of HTTPRoutes and GRPCRoutes out that are not valid, with a warning; without this they
    /// are errors
    #[arg(long)]
    drop_invalid_rules: bool,
}

impl Files {
    fn invalid_rules(&self) -> InvalidRules {
        InvalidRules::dropped_if(self.drop_invalid_rules)
    }

    fn read(&self) -> Result<Vec<SourceFile>, Failure> {
        read(&self.file)
    }
}

fn read(paths: &[PathBuf]) -> Result<Vec<SourceFile>, Failure> {
    read_files(paths).map_err(|error| {
        let code = match &error {
            FilesError::Io { source, .. }
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                Code::NotPermitted
            }
            // Not `Failed`: for `diff` that would be a difference.
            FilesError::Io { .. }
            | FilesError::NotText(_)
            | FilesError::Empty(_)
            | FilesError::TooLarge => Code::BadData,
        };
        Failure::new(code, error)
    })
}

/// The resources of files, if they are valid; warnings go to stderr.
pub(super) fn offline(paths: &[PathBuf]) -> Result<Set, Failure> {
    let (set, findings) = checked(&read(paths)?, InvalidRules::Refuse);
    report(&findings)?;
    Ok(set)
}

fn checked(files: &[SourceFile], invalid_rules: InvalidRules) -> (Set, Findings) {
    let parsed = parse_with(files, invalid_rules);
    let mut set = Set::default();
    for resource in parsed.resources.clone() {
        set.insert(resource);
    }
    let mut findings = weft_config::validate::validate(&set, None, &parsed);
    findings.extend(parsed.findings);
    findings.sort();
    (set, findings)
}

#[derive(Debug, Args)]
struct ChangeFlags {
    #[command(flatten)]
    context: ContextFlags,
    /// How long to wait for the sidecars
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    wait: DurationText,
    /// Only show what would change
    #[arg(long)]
    dry_run: bool,
    /// Why, for the history
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    message: String,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl ChangeFlags {
    async fn connect(&self) -> Result<Operator, Failure> {
        let call = self.wait.0.saturating_add(limits::ANSWER_MARGIN);
        self.context.connect_for(call).await
    }

    fn options(&self) -> ChangeOptions {
        ChangeOptions {
            message: self.message.clone(),
            wait: self.wait.0,
            dry_run: self.dry_run,
            ..ChangeOptions::default()
        }
    }
}

/// Runs `weft apply`.
pub fn apply(args: &Apply) -> Result<(), Failure> {
    let files = args.files.read()?;
    let options = ChangeOptions {
        prune: args.namespace.clone(),
        invalid_rules: args.files.invalid_rules(),
        ..args.how.options()
    };
    let result = process::runtime()?.block_on(async {
        let mut operator = args.how.connect().await?;
        operator
            .apply(&files, &options)
            .await
            .map_err(|error| refused(&error))
    })?;
    conclude(&args.how, &result)
}

/// Runs `weft delete`.
pub fn delete(args: &Delete) -> Result<(), Failure> {
    let keys = args.keys()?;
    let result = process::runtime()?.block_on(async {
        let mut operator = args.how.connect().await?;
        operator
            .delete(&keys, &args.how.options())
            .await
            .map_err(|error| refused(&error))
    })?;
    conclude(&args.how, &result)
}

impl Delete {
    fn keys(&self) -> Result<Vec<Key>, Failure> {
        if !self.file.is_empty() {
            return self.keys_of_files();
        }
        let usage = |error: &dyn std::fmt::Display| Failure::new(Code::Usage, error);
        let parse = |text: &str| text.parse::<Key>().map_err(|error| usage(&error));
        let Some((kind, names)) = self.resources.split_first() else {
            return Ok(Vec::new());
        };
        if kind.contains('/') {
            if self.namespace.is_some() {
                return Err(usage(
                    &"KIND/NAMESPACE/NAME has its namespace: leave -n out",
                ));
            }
            return self.resources.iter().map(|text| parse(text)).collect();
        }
        let kind: Kind = kind.parse().map_err(|error| usage(&error))?;
        if names.is_empty() {
            let line = format!("say which: weft delete {} NAME -n NAMESPACE", kind.as_str());
            return Err(usage(&line));
        }
        let key = |name: &String| match (&self.namespace, kind) {
            (None, Kind::MeshConfig) => parse(&format!("{}/{name}", kind.as_str())),
            (Some(_), Kind::MeshConfig) => {
                Err(usage(&"a MeshConfig has no namespace: leave -n out"))
            }
            (Some(namespace), _) => parse(&format!("{}/{namespace}/{name}", kind.as_str())),
            (None, _) => Err(usage(&format!(
                "in which namespace? write -n NAMESPACE, or {}/NAMESPACE/{name}",
                kind.as_str()
            ))),
        };
        names.iter().map(key).collect()
    }

    fn keys_of_files(&self) -> Result<Vec<Key>, Failure> {
        let parsed = parse(&read(&self.file)?);
        report(&parsed.findings)?;
        let keys: BTreeSet<Key> = parsed.resources.iter().map(Resource::key).collect();
        Ok(keys.into_iter().collect())
    }
}

/// Runs `weft rollback`.
pub fn rollback(args: &Rollback) -> Result<(), Failure> {
    let result = process::runtime()?.block_on(async {
        let mut operator = args.how.connect().await?;
        operator
            .rollback(args.revision, &args.how.options())
            .await
            .map_err(|error| refused(&error))
    })?;
    for revision in &result.overwritten {
        note(format_args!(
            "weft: warning: this undoes revision {} of {} ({})",
            revision.number,
            printable(&revision.author),
            printable(&revision.message)
        ));
    }
    conclude(&args.how, &result)
}

/// Runs `weft diff`.
pub fn diff(args: &Diff) -> Result<(), Failure> {
    let files = args.files.read()?;
    let result = process::runtime()?.block_on(async {
        let mut operator = args.context.connect().await?;
        let changes = operator.diff(&files, args.files.invalid_rules()).await;
        changes.map_err(|error| refused(&error))
    })?;
    report(&result.findings)?;
    print_or(args.output, &result.changes, |changes| {
        changes_text(changes)
    })?;
    if result.changes.is_empty() {
        return Ok(());
    }
    Err(Failure::silent(Code::Failed))
}

/// Runs `weft validate`.
pub fn validate(args: &Validate) -> Result<(), Failure> {
    let (set, findings) = checked(&args.files.read()?, args.files.invalid_rules());
    if args.output != Format::Table {
        print_or(args.output, &findings, |_| String::new())?;
        return if findings.has_errors() {
            Err(Failure::silent(Code::BadData))
        } else {
            Ok(())
        };
    }
    report(&findings)?;
    let count = set.resources.len();
    let are = if count == 1 {
        "resource is"
    } else {
        "resources are"
    };
    text_out(&format!("{count} {are} valid\n"))
}

/// A wait that is long enough even right after a start of the config service.
const SETTLING: Duration = Duration::from_secs(limits::LEASE.as_secs() + 5);

/// Prints a change's result and turns it into the exit code.
fn conclude(how: &ChangeFlags, result: &ChangeResult) -> Result<(), Failure> {
    if how.output == Format::Table {
        report(&result.findings)?;
    }
    print_or(how.output, result, |result| {
        let mut text = changes_text(&result.changes);
        for judged in &result.routes {
            for parent in &judged.parents {
                text += &judgement(&judged.resource, parent);
            }
        }
        match &result.revision {
            Some(revision) => text += &format!("revision {}\n", revision.number),
            None if result.changes.is_empty() => text += "nothing to change\n",
            None => text += "nothing was changed\n",
        }
        let running = result
            .sidecars
            .iter()
            .filter(|sidecar| sidecar.acknowledged)
            .count();
        if result.revision.is_some() {
            text += &format!("{running} of {} sidecars run it\n", result.sidecars.len());
        }
        text
    })?;
    if result.findings.has_errors() {
        return Err(Failure::silent(Code::BadData));
    }
    // Also if there was no change to make: the revision in force must have reached all sidecars. A dry run
    // asks no sidecar.
    let mut good = true;
    if result.settling {
        good = false;
        note(format_args!(
            "weft: the config service was just started and does not know yet which sidecars there are, so not \
             all may run it: do the same again, with --wait {}s",
            SETTLING.as_secs()
        ));
    }
    for sidecar in result
        .sidecars
        .iter()
        .filter(|sidecar| !sidecar.acknowledged)
    {
        good = false;
        let state = match &sidecar.refusal {
            Some(reason) => format!("refuses it: {}", printable(reason)),
            None if sidecar.lost => format!(
                "lost its stream to the config service and has not come back within {}; it may run what it had",
                how.wait
            ),
            None => format!("has not answered within {}", how.wait),
        };
        note(format_args!(
            "weft: {} ({}) {state}",
            sidecar.identity,
            printable(&sidecar.instance)
        ));
    }
    for sidecar in &result.sidecars {
        for withheld in &sidecar.withheld {
            good = false;
            note(format_args!(
                "weft: {} ({}): {}",
                sidecar.identity,
                printable(&sidecar.instance),
                printable(withheld.to_string())
            ));
        }
    }
    if good {
        Ok(())
    } else {
        Err(Failure::silent(Code::Failed))
    }
}

fn changes_text(changes: &[weft_config::diff::Change]) -> String {
    changes.iter().map(|change| format!("{change}\n")).collect()
}

/// What a parent makes of a route: a line, with the conditions that are not as they should be.
fn judgement(route: &str, parent: &ParentStatus) -> String {
    let refused = |one: &&Condition| match one.kind {
        ConditionType::Accepted | ConditionType::ResolvedRefs => {
            one.status == ConditionStatus::False
        }
        ConditionType::PartiallyInvalid => one.status == ConditionStatus::True,
    };
    let troubles: Vec<String> = parent
        .conditions
        .iter()
        .filter(refused)
        .map(|one| {
            format!(
                "{:?}={:?} {:?}: {}",
                one.kind, one.status, one.reason, one.message
            )
        })
        .collect();
    let says = match troubles.is_empty() {
        true => "Accepted".to_owned(),
        false => troubles.join("; "),
    };
    let at = &parent.parent_ref;
    let section = at.section_name.iter().map(|name| format!(" ({name})"));
    let port = at.port.iter().map(|port| format!(":{port}"));
    let place: String = port.chain(section).collect();
    let name = &at.name;
    format!("{route} at Service {name}{place}: {}\n", printable(says))
}

/// Shows the findings of validation; errors end the command.
fn report(findings: &Findings) -> Result<(), Failure> {
    for finding in &findings.listed {
        note(printable(finding.to_string()));
    }
    if findings.omitted > 0 {
        note(format_args!("and {} more", findings.omitted));
    }
    if findings.has_errors() {
        return Err(Failure::new(
            Code::BadData,
            "the resources are not valid; nothing was changed",
        ));
    }
    Ok(())
}
