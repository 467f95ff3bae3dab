#!/usr/bin/env bash
# Installs what orderflow needs: system packages, .venv, the broker's jars. Safe to repeat; then it takes no time.
#
#     provision.sh [--tests]    with --tests also what only the tests need: promtool
#
# On Debian and Ubuntu, as root or with sudo, it installs what is missing. Elsewhere it says what to install.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'provision: %s\n' "$*"; }
fail() { printf 'provision: %s\n' "$*" >&2; exit 1; }

# quietly COMMAND...: its output is shown only when it fails
quietly() {
  local log
  log=$(mktemp)
  "$@" >"$log" 2>&1 || { cat "$log" >&2; rm -f "$log"; fail "this failed: $*"; }
  rm -f "$log"
}

# --- what is there -----------------------------------------------------------------------------------------------

# A python3 with venv, 3.11 or newer. Debian has `venv` without `ensurepip` until python3-venv is installed, and a
# version manager's shim may stand for an interpreter that is not installed: only running it tells.
find_python() {
  local python
  for python in python3 /usr/bin/python3 python3.13 python3.12 python3.11; do
    if "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$python"
      return
    fi
  done
  return 1
}

java_is_new_enough() {
  local version
  version=$(java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p') || return 1
  [ "${version:-0}" -ge 17 ]
}

# What .venv is made from; where it stands, too: it cannot be moved. Packages below the source roots are mapped one by
# one in an editable install, so a new one wants a new install.
venv_hash() {
  {
    pwd
    find http workers -mindepth 1 -maxdepth 1 -type d ! -name '__pycache__' ! -name '*.egg-info' | sort
    cat setup.py pyproject.toml constraints.txt
  } | sha256sum
}

broker_hash() { sha256sum <deploy/kafka/pom.xml; }

same() { [ "$(cat "$1" 2>/dev/null)" = "$2" ]; } # same STAMP HASH

# --- system packages ---------------------------------------------------------------------------------------------

# Sets apt, the command that may change the system. Maintainer scripts must not ask, another apt may be at work, and a
# mirror may stumble.
need_apt() { # need_apt WHAT-FOR
  local sudo=()
  command -v apt-get >/dev/null || fail "please install: $1"
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || fail "please install (neither root nor sudo here): $1"
    sudo=(sudo)
  fi
  apt=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
}

update_lists() {
  say "apt: updating the package lists"
  quietly "${apt[@]}" update
}

install_packages() { # install_packages MISSING...
  local java=openjdk-17-jre-headless packages=() what
  need_apt "${list%, }"
  update_lists
  apt-cache show "$java" >/dev/null 2>&1 || java=default-jre-headless
  for what in "$@"; do
    case $what in
      *Java*) packages+=("$java") ;;
      *Maven*) packages+=(maven) ;;
      *Python*) packages+=("$(python_package)") ;;
    esac
  done
  say "apt: installing ${packages[*]}"
  quietly "${apt[@]}" install -y --no-install-recommends "${packages[@]}"
}

# python3-venv, or on a release whose python3 is too old a newer one beside it.
python_package() {
  local version
  version=$(apt-cache show python3 2>/dev/null | sed -n 's/^Version: 3\.\([0-9]*\).*/\1/p' | head -n 1)
  if [ "${version:-0}" -lt 11 ] && apt-cache show python3.11-venv >/dev/null 2>&1; then
    echo python3.11-venv
  else
    echo python3-venv
  fi
}

# The oldest promtool that the tests were tried with: Debian 12's.
oldest_promtool=2.42
wanted_promtool="promtool $oldest_promtool or newer on PATH; it comes with Prometheus (https://prometheus.io/download)"

# What the tests take: the one in .venv, else the one on PATH.
find_promtool() { command -v .venv/bin/promtool || command -v promtool; }

promtool_is_new_enough() { # promtool_is_new_enough COMMAND
  local version
  version=$("$1" --version 2>&1 | sed -n 's/^promtool, version \([0-9.]*\).*/\1/p') || return 1
  [ -n "$version" ] && printf '%s\n' "$oldest_promtool" "$version" | sort -V -C
}

# promtool comes with the Prometheus server, which has no business here: it alone is taken out of Debian's package.
fetch_promtool() { # fetch_promtool TO
  need_apt "$wanted_promtool. Only the tests need it; all else is ready"
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  say "apt: fetching promtool"
  # Without lists, or with old ones, there is nothing to fetch.
  download_prometheus "$folder" 2>/dev/null || { update_lists; quietly download_prometheus "$folder"; }
  dpkg-deb --fsys-tarfile "$folder"/prometheus_*.deb | tar -x -C "$folder" ./usr/bin/promtool
  promtool_is_new_enough "$folder/usr/bin/promtool" || fail "apt's is too old; please install: $wanted_promtool"
  install -m 755 "$folder/usr/bin/promtool" "$1"
  rm -rf "$folder"
  trap - EXIT
}

download_prometheus() { # download_prometheus FOLDER
  (cd "$1" && apt-get -qq -o APT::Sandbox::User= -o Acquire::Retries=3 download prometheus)
}

[ "${BASH_SOURCE[0]}" = "$0" ] || return 0 # whoever reads this file wants what is above alone

# --- the steps ---------------------------------------------------------------------------------------------------

mkdir -p var/log var/run var/kafka
# `make up` and `make test` may start at the same time. Where there is no flock, nobody waits.
exec 9>var/run/provision.lock
if command -v flock >/dev/null; then flock 9; fi

venv=$(venv_hash)
broker=$(broker_hash)
missing=()
same .venv/.provisioned "$venv" && .venv/bin/python -c '' 2>/dev/null && venv_ready=1 || venv_ready=
same deploy/kafka/libs/.provisioned "$broker" && broker_ready=1 || broker_ready=
java_is_new_enough || missing+=("Java 17 or newer")
[ -n "$broker_ready" ] || command -v mvn >/dev/null || missing+=("Maven")
[ -n "$venv_ready" ] || find_python >/dev/null || missing+=("Python 3.11 or newer with venv")

if [ ${#missing[@]} -gt 0 ]; then
  printf -v list '%s, ' "${missing[@]}"
  say "missing: ${list%, }"
  install_packages "${missing[@]}"
  java_is_new_enough || fail "there is still no Java 17 or newer on PATH; please install one"
  [ -n "$venv_ready" ] || find_python >/dev/null || fail "there is still no Python 3.11 or newer with venv; please install one"
fi

if [ -z "$venv_ready" ]; then
  # Kept when it works: pip then installs the difference.
  if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    say "python: making .venv with $(find_python)"
    "$(find_python)" -m venv --clear .venv
  fi
  say "python: installing $(grep -c == constraints.txt) packages and orderflow itself into .venv"
  quietly .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input -c constraints.txt -e '.[dev]'
  echo "$venv" >.venv/.provisioned
fi

if [ -z "$broker_ready" ]; then
  say "broker: resolving Apache Kafka with Maven"
  rm -rf deploy/kafka/libs # jars of another version would lie on the same class path
  quietly mvn -q -B -f deploy/kafka/pom.xml dependency:copy-dependencies
  echo "$broker" >deploy/kafka/libs/.provisioned
fi

if [ "${1:-}" = --tests ] && ! { promtool=$(find_promtool) && promtool_is_new_enough "$promtool"; }; then
  fetch_promtool .venv/bin/promtool
fi

say "ready"
