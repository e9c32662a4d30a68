#!/usr/bin/env bash
# A bare Debian 12, made anew, in which the README's commands must work as they are written: debootstrap's
# smallest system, this repository's HEAD cloned into it, no environment, nobody to answer a question.
#
#   ./dev bare [--keep] [--no-test] [DIR]      (tests/bare.sh, as root)
#
#   DIR        where the system is made (DIR/root) and where the logs go; a new directory otherwise
#   --keep     DIR is left: the system to look into, and base.tar, with which the next run begins
#   --no-test  the demo only, which takes a minute or two; ./dev test takes many
#
# Debian is asked for where this machine asks for it (apt's sources, proxies, keys; npm's likewise), or at $MIRROR
# alone, whose keys are in $KEYRING if they are not Debian's.
#
# It runs in a mount namespace of its own where that is allowed, so that no mount outlives it. Which
# processes belong to the system is told by their root directory.
set -euo pipefail

repository=$(cd -- "$(dirname -- "$0")/.." && pwd)
release=bookworm
home=/root/comfy-agent # the clone, seen from inside
keep=false with_tests=true dir=''
job=''     # the process group of the present step
timings=()

say() { printf '\033[1m%s\033[0m\n' "bare: $*"; }

die() {
    say "FAILED: $*" >&2
    exit 1
}

usage() {
    sed -n '/^# *\.\/dev bare/,/^# alone/s/^# \{0,1\}//p' "$0"
    exit "$1"
}

# step WHAT COMMAND…: runs it and notes how long it took. In the background, since a signal is heeded
# while bash waits, but not while a command is in front; in a group of its own, to end all of it.
step() {
    local what=$1 began=$SECONDS
    say "$what"
    set -m
    "${@:2}" </dev/null &
    job=$!
    set +m
    wait "$job" || {
        say "FAILED after $((SECONDS - began)) s: $what" >&2
        exit 1
    }
    job=''
    timings+=("$(printf '%5d s  %s' $((SECONDS - began)) "$what")")
}

# The process ids of whatever runs in the bare system.
inhabitants() {
    local process
    for process in /proc/[0-9]*; do
        [ "$(readlink "$process/root")" != "$root" ] || echo "${process#/proc/}"
    done
}

# Ends the present step, if there is one, and whatever runs in the bare system; waits until they are gone.
end_all() {
    local signal=TERM try
    for ((try = 0; try < 50; try++)); do
        [ -z "$job" ] || kill -$signal -- "-$job" 2>/dev/null || job=''
        inhabitants | xargs -r kill -$signal 2>/dev/null || true
        [ -z "$job" ] || wait "$job" 2>/dev/null || true
        [ -n "$job$(inhabitants)" ] || return 0
        signal=KILL
        sleep 0.1
    done
}

clean_up() {
    local code=$? mounted
    trap - EXIT
    trap '' INT TERM
    end_all
    for mounted in "$root/proc" "$root/dev"; do
        ! mountpoint -q "$mounted" || umount -R "$mounted" || umount -R -l "$mounted" || true
    done
    if $keep; then
        say "the system is left in $root"
    elif mountpoint -q "$root/proc" || mountpoint -q "$root/dev"; then
        say "$root has mounts that cannot be undone; it is left"
    else
        rm -rf --one-file-system -- "$root" "$dir/logs"
        rmdir --ignore-fail-on-non-empty -- "$dir"
    fi
    exit $code
}

# Prints "SUITE URI" of Debian's suites, of which one must be the release itself.
debian_suites() {
    if [ -n "${MIRROR:-}" ]; then
        echo "$release $MIRROR"
    else
        # shellcheck disable=SC2016 # the dollars are apt's
        apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Identifier: Packages' \
            'Origin: Debian' 'Component: main' |
            grep -E "^$release(-updates|-security)? " | sort -u
    fi
}

make_base() {
    local mirror=$1 log=$dir/logs/debootstrap
    if [ -f "$dir/base.tar" ]; then
        tar -C "$root" -xf "$dir/base.tar"
        return
    fi
    local proxy
    eval "$(apt-config shell proxy Acquire::http::Proxy)"
    [ -z "${proxy:-}" ] || export http_proxy=${http_proxy:-$proxy}
    debootstrap --variant=minbase ${KEYRING:+"--keyring=$KEYRING"} "$release" "$root" "$mirror" \
        >"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        die "debootstrap: is $dir perhaps mounted noexec or nodev?"
    }
    if $keep; then
        tar -C "$root" --one-file-system -cf "$dir/base.tar.part" .
        mv "$dir/base.tar.part" "$dir/base.tar"
    fi
}

# The bare system asks for packages and finds hosts as this machine does.
configure() {
    local apt=$root/etc/apt
    sed -E 's/^([^ ]+) (.*)$/deb \2 \1 main/' <<<"$1" >"$apt/sources.list"
    apt-config dump |
        { grep -E '^Acquire::(Check-Valid-Until|Check-Date|Retries|https?::.*) ' || true; } |
        { grep -v 'Proxy-Auto-Detect' || true; } >"$apt/apt.conf.d/99host"
    cp -n /etc/apt/trusted.gpg.d/* ${KEYRING:+"$KEYRING"} "$apt/trusted.gpg.d/" 2>/dev/null || true
    cp /etc/resolv.conf /etc/hosts "$root/etc/"
    if grep -q ' https:' "$apt/sources.list" && [ -f /etc/ssl/certs/ca-certificates.crt ]; then
        mkdir -p "$root/etc/ssl/certs"
        cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
    fi
    configure_npm
}

# npm, too, asks where this machine's does, and trusts whom it trusts.
configure_npm() {
    local registry cafile
    command -v npm >/dev/null || return 0
    registry=$(npm config get registry 2>/dev/null) || return 0
    cafile=$(npm config get cafile 2>/dev/null) || cafile=null
    echo "registry=$registry" >"$root/root/.npmrc"
    if [ -f "$cafile" ]; then
        cp "$cafile" "$root/root/.npm-ca.crt"
        echo "cafile=/root/.npm-ca.crt" >>"$root/root/.npmrc"
    fi
}

# /proc is needed by everything; /dev can be what debootstrap made, where mounting is not allowed.
# Slaves, so that what is unmounted here stays mounted there.
attach() {
    mount -t proc proc "$root/proc" 2>/dev/null ||
        mount --rbind --make-rslave /proc "$root/proc" || die "/proc cannot be mounted"
    mount --rbind --make-rslave /dev "$root/dev" 2>/dev/null ||
        say "/dev cannot be mounted; taking the device files that debootstrap made"
}

clone() {
    [ -z "$(git -C "$repository" status --porcelain)" ] ||
        say "what is not committed is not in the clone"
    git clone --quiet --depth 1 -c advice.detachedHead=false "file://$repository" "$root$home"
}

# Nothing may run on after a command that has ended. (The kernel takes a moment to bury the killed.)
nothing_runs() {
    local left try
    for ((try = 0; try < 20; try++)); do
        left=$(inhabitants)
        [ -n "$left" ] || return 0
        sleep 0.1
    done
    for try in $left; do
        tr '\0' ' ' <"/proc/$try/cmdline" >&2 && echo >&2
    done
    die "these run on"
}

# Since $dir/logs/mark nothing was written outside the clone and /tmp, and git sees nothing new. What npm
# and chromium keep for themselves is theirs.
nothing_spilled() {
    local spilled
    spilled=$(find "$root" \( -path "$root$home" -o -path "$root/tmp" -o -path "$root/proc" \
        -o -path "$root/dev" -o -path "$root/root/.npm" -o -path "$root/root/.cache" \
        -o -path "$root/root/.config" -o -path "$root/root/.pki" -o -path "$root/var/cache/fontconfig" \
        \) -prune -o -path "$root/root" -o -path "$root/var/cache" -o -cnewer "$dir/logs/mark" -print)
    [ -z "$spilled" ] || die "written outside the clone: $spilled"
    spilled=$(git -C "$root$home" status --porcelain)
    [ -z "$spilled" ] || die "left in the clone: $spilled"
}

mark() {
    sleep 0.05 # the clock of file times is coarse
    touch "$dir/logs/mark"
}

check_picture() {
    "${inside[@]}" /usr/bin/python3 -c '
from PIL import Image
picture = Image.open(".demo/picture.png")
picture.load()
colours = len(picture.convert("RGB").getcolors(1 << 24))
print("picture:", picture.format, *picture.size, "with", colours, "colours")
assert picture.format == "PNG" and min(picture.size) >= 64 and colours > 16'
}

demo_once() {
    local log=$dir/logs/demo-once
    rm -f "$root$home/.demo/picture.png"
    "${inside[@]}" timeout 1800 ./dev demo --once | tee "$log"
    grep -qE '^\[#*\.*\] [0-9]+/[0-9]+ nodes' "$log" || die "no progress was shown"
    check_picture
    nothing_runs
}

# demo_serving SIGNAL: what the demo prints to be tried is tried, then it is ended. As by Ctrl-C: SIGINT
# goes to all of the terminal's group; SIGTERM to the one process.
demo_serving() {
    local log=$dir/logs/demo-$1 line='' pid code=0 try
    : >"$log"
    set -m # a group of its own
    "${inside[@]}" ./dev demo >"$log" 2>&1 &
    pid=$!
    set +m
    for ((try = 0; try < 3000; try++)); do
        line=$(sed -n 's/^ *\(curl .*\)$/\1/p' "$log")
        [ -z "$line" ] || break
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    cat "$log"
    [ -n "$line" ] || die "no address was printed"
    "${inside[@]}" bash -c "$line --silent --show-error --fail" >"$dir/logs/answer" ||
        die "this failed: $line"
    grep -q '"results":\["iVBOR' "$dir/logs/answer" || die "there is no PNG in the answer"
    case $1 in
    INT) kill -INT -- "-$pid" ;;
    *) kill "-$1" "$pid" ;;
    esac
    for ((try = 0; try < 600; try++)); do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    ! kill -0 "$pid" 2>/dev/null || die "a minute after SIG$1 it still runs"
    wait "$pid" || code=$?
    [ $code -eq 0 ] || die "ended by SIG$1 it exited with $code: $(tail "$log")"
    nothing_runs
}

tests() {
    "${inside[@]}" ./dev setup
    mark
    "${inside[@]}" ./dev test 2>&1 | tee "$dir/logs/test"
    nothing_runs
    nothing_spilled
}

main() {
    local suites mirror
    suites=$(debian_suites) || true
    mirror=$(sed -n "s/^$release //p" <<<"$suites" | head -n 1)
    [ -n "$mirror" ] || die "apt knows no Debian $release here: apt-get update, or set MIRROR"
    step "debootstrap" make_base "$mirror"
    configure "$suites"
    attach
    clone
    step "./dev demo --once, with nothing installed" demo_once
    mark
    step "./dev demo --once, again" demo_once
    step "./dev demo, then Ctrl-C" demo_serving INT
    step "./dev demo, then SIGTERM" demo_serving TERM
    nothing_spilled
    ! $with_tests || step "./dev test" tests
    say "all of it works"
    printf '%s\n' "${timings[@]}"
}

for argument in "$@"; do
    case $argument in
    --keep) keep=true ;;
    --no-test) with_tests=false ;;
    --help | -h) usage 0 ;;
    -*) usage 64 >&2 ;;
    *)
        [ -z "$dir" ] || usage 64 >&2
        dir=$argument
        ;;
    esac
done
[ "$(id -u)" -eq 0 ] || die "only root can make a system"
command -v debootstrap >/dev/null || die "there is no debootstrap: apt-get install debootstrap"
if [ -z "${BARE_NAMESPACE:-}" ]; then
    if unshare --mount true 2>/dev/null; then
        BARE_NAMESPACE=own exec unshare --mount --propagation private -- "$0" "$@"
    fi
    say "no mount namespace is to be had; the mounts are undone at the end"
fi
if [ -n "$dir" ]; then
    mkdir -p -- "$dir"
else
    dir=$(mktemp -d --tmpdir bare-debian.XXXXXX)
fi
dir=$(realpath -- "$dir")
root=$dir/root
exec {lock}<"$dir" # two runs in one directory would take the ground from under each other
flock -n "$lock" || die "another run works in $dir"
others=$(find "$dir" -mindepth 1 -maxdepth 1 -regextype egrep ! -regex '.*/(root|logs|base\.tar(\.part)?)' -print -quit)
[ -z "$others" ] || die "$dir has other things in it than a bare system: $others"
rm -rf --one-file-system -- "$root" "$dir/logs" # of a run before
mkdir -p -- "$root" "$dir/logs"
inside=(chroot "$root" /usr/bin/env -i --default-signal=INT PATH=/usr/sbin:/usr/bin:/sbin:/bin
    HOME=/root "TERM=${TERM:-dumb}" bash -c "cd $home && exec \"\$@\"" bash)
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
main
