//! `env`: the variables that carry alert values to the commands.

use std::collections::BTreeMap;

use super::diagnostic::quoted;
use super::settings;
use super::yaml::{Node, Problems};

/// Variables that change what a shell, the loader or an interpreter does, or that heal and the shell
/// set themselves. An alert's value in one of them could become a program.
const RESERVED: &[&str] = &[
    "PATH",
    "IFS",
    "ENV",
    "SHELL",
    "SHELLOPTS",
    "HOME",
    "PWD",
    "OLDPWD",
    "CDPATH",
    "GLOBIGNORE",
    "FIGNORE",
    "FPATH",
    "POSIXLY_CORRECT",
    "PROMPT_COMMAND",
    "PS0",
    "PS1",
    "PS2",
    "PS3",
    "PS4",
    "UID",
    "EUID",
    "PPID",
    "GROUPS",
    "OPTIND",
    "OPTARG",
    "OPTERR",
    "RANDOM",
    "SECONDS",
    "LINENO",
    "FUNCNAME",
    "DIRSTACK",
    "HISTFILE",
    "HISTCMD",
    "TMPDIR",
    "EDITOR",
    "VISUAL",
    "PAGER",
    "MANPAGER",
    "LESSOPEN",
    "LESSCLOSE",
    "BROWSER",
    "TERMINFO",
    "GCONV_PATH",
    "LOCPATH",
    "NLSPATH",
    "HOSTALIASES",
    "RES_OPTIONS",
    "RESOLV_HOST_CONF",
    "MALLOC_CHECK_",
    "MALLOC_TRACE",
    "PERLLIB",
    "PERL5LIB",
    "PERL5OPT",
    "PERL5DB",
    "RUBYLIB",
    "RUBYOPT",
    "NODE_OPTIONS",
    "NODE_PATH",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "_JAVA_OPTIONS",
    "CLASSPATH",
    "SSH_ASKPASS",
    "SUDO_ASKPASS",
    "SUDO_EDITOR",
    "ZDOTDIR",
    "OPENSSL_CONF",
    "OPENSSL_MODULES",
    "CURL_HOME",
    "WGETRC",
];

/// Beginnings of such names.
const RESERVED_FAMILIES: &[&str] =
    &["LD_", "DYLD_", "BASH", "SSM_", "AWS_", "HEAL_", "PYTHON", "GIT_", "SYSTEMD_", "GLIBC_", "RUST_"];

/// Reads `env`: names that shells take, values that may hold templates.
pub fn read(node: &Node, problems: &mut Problems) -> Option<BTreeMap<String, String>> {
    let mut env = BTreeMap::new();
    let mut fine = true;
    for entry in problems.map("`env`", node)? {
        let name = entry.key.as_str();
        if !is_name(name) {
            problems
                .error(entry.key_span, format!("{} is not the name of a variable", quoted(name)))
                .hint("letters, digits and `_`, not a digit first: MOUNT");
            fine = false;
            continue;
        }
        if RESERVED.contains(&name)
            || RESERVED_FAMILIES.iter().any(|family| name.starts_with(family))
            || name == "_"
        {
            problems
                .error(entry.key_span, format!("{} may not be set", quoted(name)))
                .label("changes what the shell or a program does")
                .hint("choose another name; commands that need this one set it themselves");
            fine = false;
            continue;
        }
        if settings::KEYS.contains(&name) {
            problems
                .warning(
                    entry.key_span,
                    format!("{} is a key of a rule, and here it is a variable", quoted(name)),
                )
                .hint("look at the indentation");
        }
        let what = format!("the variable {}", quoted(name));
        match settings::templated(&what, &entry.value, problems) {
            Some((text, _)) => {
                env.insert(name.to_owned(), text);
            }
            None => fine = false,
        }
    }
    fine.then_some(env)
}

fn is_name(name: &str) -> bool {
    name.len() <= 100
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.bytes().next().is_none_or(|byte| byte.is_ascii_digit())
}
