"""`install cron`, `install systemd`."""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assetbatch import config as configuration
from assetbatch.cli import unattended
from assetbatch.cli.files import replacing
from assetbatch.cli.invocation import current, embedded_server, print_json
from assetbatch.cli.trouble import tell
from assetbatch.errors import ConfigurationError, Fault
from assetbatch.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from assetbatch.deployment.units import Target

install_app = typer.Typer(help="Have the jobs started: cron or systemd, one of the two.", no_args_is_help=True)

UserOption = Annotated[
    str | None, typer.Option("--user", metavar="NAME", help="Who runs the jobs; only root may name another user.")
]
WriteOption = Annotated[bool, typer.Option("--write", help="Do it; without, it is only shown.")]
StreamOption = Annotated[
    bool, typer.Option("--with-stream", help="Start `stream`, too; also where stream.enabled is true.")
]
MODE = 0o644


@install_app.command("cron")
def cron(
    user: UserOption = None,
    write: WriteOption = False,
    remove: Annotated[bool, typer.Option("--remove", help="Take the lines of assetbatch out again.")] = False,
    mailto: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Where mail of these lines goes; else as it is there, else to the user."),
    ] = None,
    with_stream: StreamOption = False,
) -> None:
    """Show the lines of a crontab that start the jobs of this installation; --write puts them there.

    They are a block of their own in your crontab, or in that of --user; all other lines stay. Written again, it is
    replaced.

    Example: assetbatch install cron --mailto me@example.com --write
    """
    from assetbatch.deployment import crontab

    account = unattended.account_of(user)
    user = None if account.pw_uid == os.geteuid() else user
    before = crontab.read(user)
    if remove:
        ours, after = crontab.ours(before), crontab.replaced(before, "")
    else:
        ours = _block(account, user, before, write=write, mailto=_mailto(before, mailto), with_stream=with_stream)
        after = crontab.replaced(before, ours)
        for line in crontab.jobs_elsewhere(before):
            tell(f"another line of the crontab starts a job as well: {line}")
    if write and after != before:
        crontab.write(user, after)
    whose = f"the crontab of {account.pw_name}"
    if current.json:
        changed = {"user": account.pw_name, "changed": after != before, "written": write and after != before}
        print_json(changed | {"block": ours})
        return
    if after == before:
        told = f"{whose} {'has no lines of assetbatch' if remove else 'has these lines already'}"
    elif write:
        told = f"{whose}: {'the lines of assetbatch are out' if remove else 'written'}"
    else:
        told = f"--write {'takes these lines out of' if remove else 'puts these lines into'} {whose}"
    if write:
        sys.stdout.write(f"{told}\n")
        if after != before and not remove:
            tell("cron starts the first job within a minute, and run-priority at its next full interval")
    else:
        sys.stdout.write(ours)
        tell(told)


def _mailto(crontab_text: str, address: str | None) -> str | None:
    """Return the line of MAILTO: as it is asked for, else as it is there, None for none."""
    from assetbatch.deployment import crontab

    if address is None:
        return crontab.mailto_of(crontab_text)
    if not address.isprintable() or " " in address:
        raise typer.BadParameter("an address of mail has no space in it", param_hint="--mailto")
    return f"MAILTO={address}" if address else 'MAILTO=""'


def _block(
    account: pwd.struct_passwd,
    user: str | None,
    crontab_text: str,
    *,
    write: bool,
    mailto: str | None,
    with_stream: bool,
) -> str:
    """Return our block for a crontab that stands so; tell or refuse what will keep its jobs from running."""
    from assetbatch.deployment import crontab

    config = unattended.configuration_of(configuration.unattended(os.environ), "cron")
    command = unattended.command(config)
    doubts = unattended.Doubts()
    unattended.look(account, command, doubts)
    own = user is None
    if own and config.database.embedded and not embedded_server().is_set_up:
        tell("there is no embedded PostgreSQL yet: `assetbatch init` makes it")
    if config.api_key is None:
        tell(f"cron has no key: write POLYGON_API_KEY=… into {unattended.dotenv(config)}")
    doubts.settle(write=write)
    from assetbatch.report.doctor.cron import mail_program

    if mail_program() is None:
        tell("this host has no sendmail, so cron's mail, and with it what goes wrong, gets lost: install an MTA")
    environment = configuration.folders_named(os.environ) if own else {}
    return crontab.block(
        crontab.command_line(command, environment),
        config.settings.batch,
        mailto=mailto,
        mailto_below=crontab.mailto_above(crontab_text) or f"MAILTO={account.pw_name}",
        with_stream=with_stream or config.settings.stream.enabled,
    )


@install_app.command("systemd")
def systemd(
    user: UserOption = None,
    write: WriteOption = False,
    remove: Annotated[bool, typer.Option("--remove", help="Delete the units again.")] = False,
    folder: Annotated[
        Path | None,
        typer.Option(file_okay=False, metavar="FOLDER", help="Where the units go, in place of systemd's own folder."),
    ] = None,
    with_stream: StreamOption = False,
) -> None:
    """Show the units of systemd that start the jobs of this installation; --write puts them there.

    For root they are units of the system, which run as --user, else as the user assetbatch; for others units of their
    own. systemctl is yours to run: the commands are told.

    Example: assetbatch install systemd --write
    """
    from assetbatch.deployment import units

    account = unattended.account_of(user)
    is_system = os.geteuid() == 0
    folder = folder or (units.SYSTEM_FOLDER if is_system else Path(_config_home(), "systemd", "user"))
    if remove:
        _remove_units(folder, is_system=is_system, write=write)
        return
    target = _target(account if user else None, is_system=is_system, write=write, with_stream=with_stream)
    files = {folder / name: text for name, text in units.rendered(target).items()}
    steps = _steps(target, is_system=is_system)
    if write:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise typer.BadParameter(f"{folder}: {error.strerror}", param_hint="--folder") from None
        for file, text in files.items():
            with replacing(file, mode=MODE, option="--folder") as opened:
                opened.write(text.encode())
    if current.json:
        documents = [{"path": str(file), "content": text} for file, text in files.items()]
        print_json({"user": target.user, "written": write, "files": documents, "next": steps})
        return
    if write:
        sys.stdout.write(_told(f"wrote {counted(len(files), 'unit')} into {folder}", steps))
        return
    sys.stdout.write("\n".join(f"# {file}\n{text}" for file, text in files.items()))
    tell(_told("--write writes these units; then", steps).rstrip())


def _remove_units(folder: Path, *, is_system: bool, write: bool) -> None:
    """Delete the units; raise ConfigurationError while one of them is enabled, which would leave a link to nothing."""
    from assetbatch.deployment import shipped, units

    files = sorted(file for name in shipped.units() if (file := folder / name).exists())
    names = units.enabled(folder, [units.SERVER, *units.TIMERS, units.STREAM])
    systemctl = "systemctl" if is_system else "systemctl --user"
    disable = [f"{systemctl} disable --now {' '.join(names)}"] if names else []
    if write and names:
        raise ConfigurationError(
            [Fault("", "", f"still enabled: {', '.join(names)}")], hint=f"{disable[0]}; then this command once more"
        )
    if write:
        for file in files:
            try:
                file.unlink()
            except OSError as error:
                raise typer.BadParameter(f"{file} cannot be deleted: {error.strerror}") from None
    steps = [*disable, *([f"{systemctl} daemon-reload"] if files and write else [])]
    if current.json:
        print_json({"removed": write, "files": [{"path": str(file)} for file in files], "next": steps})
    elif not files:
        sys.stdout.write(f"{folder} has no units of assetbatch\n")
    elif write:
        sys.stdout.write(_told(f"deleted {counted(len(files), 'unit')} in {folder}", steps))
    else:
        sys.stdout.write("".join(f"{file}\n" for file in files))
        tell(_told("--write deletes these units" + ("; before that" if steps else ""), steps).rstrip())


def _target(account: pwd.struct_passwd | None, *, is_system: bool, write: bool, with_stream: bool) -> Target:
    """Return what the units are for; tell or refuse what will keep them from running."""
    from assetbatch.database.embedded.place import SERVICE_ACCOUNT
    from assetbatch.deployment import units

    doubts = unattended.Doubts()
    environ = configuration.unattended(os.environ)
    if is_system:
        environ |= units.environment_of_the_system()
    config = unattended.configuration_of(environ, "systemd")
    command = unattended.command(config)
    if is_system and account is None:
        try:
            account = pwd.getpwnam(SERVICE_ACCOUNT)
        except KeyError:
            doubts.add(
                f"there is no user {SERVICE_ACCOUNT}, who would run the jobs",
                f"useradd --system --home-dir /nonexistent --shell /usr/sbin/nologin {SERVICE_ACCOUNT}; or another"
                " one: --user NAME",
            )
    if account is not None:
        unattended.look(account, command, doubts)
    if not is_system and config.api_key is None:
        tell(f"systemd has no key: write POLYGON_API_KEY=… into {unattended.dotenv(config)}")
    doubts.settle(write=write)
    reads = [Path(command[0]), Path(sys.prefix), Path(sys.base_prefix), config.file or Path()]
    return units.Target(
        command=command,
        reads=[*reads, *(path.resolve() for path in reads)],
        batch=config.settings.batch,
        user=(account.pw_name if account else SERVICE_ACCOUNT) if is_system else None,
        group=(grp.getgrgid(account.pw_gid).gr_name if account else SERVICE_ACCOUNT) if is_system else None,
        data=configuration.data_folder(os.environ),
        environment=configuration.folders_named(os.environ),
        with_server=config.database.embedded,
        with_stream=with_stream or config.settings.stream.enabled,
    )


def _steps(target: Target, *, is_system: bool) -> list[str]:
    """Return the shell's commands that are left to do."""
    from assetbatch.deployment import units

    systemctl = "systemctl" if is_system else "systemctl --user"
    steps = []
    if not is_system:
        # Else systemd ends all of a user's units when they log out, and starts none at boot.
        steps.append("loginctl enable-linger")
    elif not units.KEY_FILE.exists():
        steps.append(f"install -d -m 700 {units.KEY_FILE.parent}")
        steps.append(f"install -m 600 /dev/null {units.KEY_FILE}   # for the key, one line")
    if not target.with_server:
        steps.append(f"{shlex.join(target.command)} init")
    return [*steps, f"{systemctl} daemon-reload", *(f"{systemctl} enable --now {one}" for one in _enabled(target))]


def _enabled(target: Target) -> Iterable[str]:
    """Return the units to enable, a command's worth each: the server first, whose start is waited for."""
    from assetbatch.deployment import units

    names = units.to_enable(target)
    return [names[0], " ".join(names[1:])] if target.with_server else [" ".join(names)]


def _told(what: str, steps: Sequence[str]) -> str:
    return "\n  ".join([f"{what}:" if steps else what, *steps]) + "\n"


def _config_home() -> str:
    """Return the folder of the user's configuration files, as systemd finds it."""
    named = os.environ.get("XDG_CONFIG_HOME", "")
    return named if Path(named).is_absolute() else str(Path.home() / ".config")
