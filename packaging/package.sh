#!/bin/sh
# Makes packages of a program that was built: deb (dpkg-deb) and rpm (rpmbuild). On Debian: apt-get install dpkg-dev rpm.
#
#   packaging/package.sh [PROGRAM [FOLDER]]      default: target/release/medusa, target/dist
#
# FORMATS            default "deb rpm"
# VERSION            default: what the program says
# MAINTAINER         who answers for the packages, as "Name <address>"
# LEVEL              of compression, 1 to 9; default 9
# SOURCE_DATE_EPOCH  the time of everything in the packages; default: of the last commit
set -eu
cd "$(dirname "$0")/.."
program=${1:-target/release/medusa}
folder=${2:-target/dist}
level=${LEVEL:-9}
maintainer=${MAINTAINER:-medusa <medusa@localhost>}
[ -x "$program" ] || {
    echo "package.sh: $program is not there. Build it first: make" >&2
    exit 1
}
# A version before 1.0.0, as 1.0.0-rc1, is 1.0.0~rc1 in both formats.
version=$("$program" --version | tr - '~')
version=${VERSION:-$version}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH
# What the program was built for, as ELF says it.
case $(od -An -tx1 -j18 -N2 "$program") in
" 3e 00") deb=amd64 rpm=x86_64 ;;
" b7 00") deb=arm64 rpm=aarch64 ;;
*) echo "package.sh: $program is for a machine that is not known here" >&2 && exit 1 ;;
esac
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
work=$(mktemp -d -p "$folder")
trap 'rm -rf "$work"' EXIT

# stage NAME [ZSH_DIR]: the files of the packages, as they will lie below /.
stage() {
    umask 022
    DESTDIR=$work/$1 PREFIX=/usr ZSH_DIR=${2:-} packaging/install.sh "$program" >/dev/null
    install -D -m 0640 packaging/medusa.ini "$work/$1/etc/medusa/medusa.ini"
    find "$work/$1" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
}

make_deb() {
    stage deb share/zsh/vendor-completions
    # dpkg-shlibdeps wants to be in a source package. A program without shared libraries needs nothing.
    mkdir -p "$work/source/debian"
    touch "$work/source/debian/control"
    depends=$(cd "$work/source" && dpkg-shlibdeps -O "$work/deb/usr/bin/medusa" 2>/dev/null | sed -n 's/^shlibs:Depends=//p')
    size=$(du -sk "$work/deb" | cut -f1)
    mkdir "$work/deb/DEBIAN"
    sed -e "s|@VERSION@|$version|" -e "s|@ARCHITECTURE@|$deb|" -e "s|@MAINTAINER@|$maintainer|" -e "s|@SIZE@|$size|" \
        -e "s|@DEPENDS@|$depends|" -e '/^Depends: $/d' packaging/deb/control >"$work/deb/DEBIAN/control"
    echo /etc/medusa/medusa.ini >"$work/deb/DEBIAN/conffiles"
    install -m 0755 packaging/deb/postinst packaging/deb/prerm packaging/deb/postrm "$work/deb/DEBIAN"
    dpkg-deb --root-owner-group -Zgzip "-z$level" --build "$work/deb" "$folder/medusa-backup_${version}_$deb.deb" >&2
}

make_rpm() {
    stage rpm
    # The program goes in as it was built: not stripped, nothing split off.
    rpmbuild -bb --quiet --target "$rpm" \
        --define "_topdir $work/rpmbuild" --define "_rpmdir $folder" --define '_rpmfilename %{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm' \
        --define "stage $work/rpm" --define "program_version $version" --define "packager $maintainer" \
        --define "_binary_payload w$level.gzdio" --define '__os_install_post %{nil}' --define 'debug_package %{nil}' \
        --define '_build_id_links none' --define '_buildhost localhost' --define 'use_source_date_epoch_as_buildtime 1' \
        packaging/rpm/medusa-backup.spec >&2
    echo "$folder/medusa-backup-$version-1.$rpm.rpm" >&2
}

for format in ${FORMATS:-deb rpm}; do
    "make_$format"
done
