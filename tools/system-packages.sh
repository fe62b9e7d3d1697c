#!/bin/sh
# What a napari window needs on a Linux machine without a screen. Debian as root: install what is missing. Elsewhere: say it.
set -eu

packages="xvfb xauth libgl1-mesa-dri libgl1 libegl1 libglx-mesa0 libopengl0 libxkbcommon-x11-0 libdbus-1-3
libfontconfig1 libglib2.0-0 libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0
libxcb-render-util0 libxcb-shape0 libxcb-sync1 libxcb-xfixes0 libxcb-xinerama0 libxcb-xkb1 libxcb-util1
fonts-dejavu-core"

[ "$(uname)" = Linux ] || exit 0
if ! command -v apt-get >/dev/null; then
    command -v xvfb-run >/dev/null ||
        echo "No xvfb-run: tests that open a window are skipped. Install Xvfb and Qt's xcb libraries to run them."
    exit 0
fi

missing=""
for package in $packages; do
    # newer releases call some of them <name>t64
    dpkg-query -W -f '${Status}\n' "$package" "${package}t64" 2>/dev/null | grep -q 'ok installed' ||
        missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then
    echo "Installing system packages:$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # shellcheck disable=SC2086  # a list of words
    apt-get install -y -qq --no-install-recommends $missing >/dev/null
else
    echo "Missing system packages; without them tests that open a window fail or are skipped. To install them:"
    echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends$missing"
fi
