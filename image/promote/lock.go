package promote

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// LockName is the name of the file that a [Lock] is kept in.
const LockName = "imgwrap.lock"

// LockVersion is the version of a lock's JSON form. It changes when a field
// changes its meaning or goes away, not when one is added.
const LockVersion = 1

// A Lock says what the images of manifests were wrapped to, so that it can be
// checked and promoted without wrapping anything.
type Lock struct {
	Version int         `json:"version"`
	Images  []Locked    `json:"images"`
	Kept    []KeptImage `json:"kept"`
}

// Locked is an image that was wrapped.
type Locked struct {
	Source       string              `json:"source"` // as a manifest named it
	SourceDigest string              `json:"source_digest"`
	Image        string              `json:"image"` // wrapped, with its tag
	Digest       string              `json:"digest"`
	Releases     []string            `json:"releases"`       // of OpenTelemetry, one unless platforms differ
	Imgwrap      string              `json:"imgwrap"`        // the version that wrapped it
	Options      map[string][]string `json:"options"`        // flags that were given, and their values
	Launcher     string              `json:"launcher"`       // that commands need in front, "" if none
	Env          map[string]string   `json:"env"`            // variables that wrapping set
	From         string              `json:"from,omitempty"` // where it was promoted from, relative to the lock, with slashes; "" if it was wrapped for these manifests
}

// Reference is the wrapped image, by tag and digest.
func (l *Locked) Reference() Reference {
	r, _ := ParseReference(l.Image) // as ParseLock saw to
	r.Digest = l.Digest
	return r
}

// KeptImage is an image that stays as it is.
type KeptImage struct {
	Source       string `json:"source"`
	SourceDigest string `json:"source_digest"`
	Reason       string `json:"reason"`
	Imgwrap      string `json:"imgwrap"` // the version that found so
}

// ParseLock reads a lock. The error is an *Error.
func ParseLock(name string, content []byte) (*Lock, error) {
	const remedy = "restore it, or remove it and promote again"
	l := new(Lock)
	if err := json.Unmarshal(content, l); err != nil {
		e := &Error{name, 0, "it is no lock of imgwrap: " + err.Error(), remedy}
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			e.Line = 1 + bytes.Count(content[:min(int(syntax.Offset), len(content))], []byte("\n"))
			if bytes.Contains(content, []byte("\n<<<<<<< ")) {
				e.Problem, e.Remedy = "it has a conflict of git in it", "keep the lines of both sides, or "+remedy
			}
		}
		return nil, e
	}
	if l.Version != LockVersion {
		return nil, &Error{name, 0, fmt.Sprintf("it is a lock of version %d, this imgwrap knows %d", l.Version, LockVersion), "use the imgwrap that wrote it, or a newer one"}
	}
	known := map[string]bool{}
	for _, i := range l.Images {
		image, err := ParseReference(i.Image)
		_, sourceErr := ParseReference(i.Source)
		switch {
		case cmp.Or(err, sourceErr) != nil:
			return nil, &Error{name, 0, cmp.Or(err, sourceErr).Error(), remedy}
		case image.Digest != "" || !isDigest(i.Digest) || !isDigest(i.SourceDigest):
			return nil, &Error{name, 0, "the digests of " + i.Source + " are not valid", remedy}
		case known[i.Image]:
			return nil, &Error{name, 0, i.Image + " is there twice", "remove one of them, or " + remedy}
		}
		known[i.Image] = true
	}
	for _, k := range l.Kept {
		if _, err := ParseReference(k.Source); err != nil {
			return nil, &Error{name, 0, err.Error(), remedy}
		}
	}
	return l, nil
}

func isDigest(s string) bool {
	hex, ok := strings.CutPrefix(s, "sha256:")
	return ok && hexDigest.MatchString(hex)
}

// Bytes is the lock's file: the same for the same images, whatever their order.
func (l *Lock) Bytes() []byte {
	sorted := Lock{LockVersion, append([]Locked{}, l.Images...), append([]KeptImage{}, l.Kept...)}
	slices.SortFunc(sorted.Images, func(a, b Locked) int {
		return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Image, b.Image))
	})
	slices.SortFunc(sorted.Kept, func(a, b KeptImage) int { return cmp.Compare(a.Source, b.Source) })
	for i := range sorted.Images {
		im := &sorted.Images[i]
		im.Releases = append([]string{}, im.Releases...)
		if im.Options == nil {
			im.Options = map[string][]string{}
		}
		if im.Env == nil {
			im.Env = map[string]string{}
		}
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	_ = e.Encode(sorted) // strings, and lists and mappings of strings
	return b.Bytes()
}
