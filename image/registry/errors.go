package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"syscall"
	"unicode"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// A UsageError says that a string is not a reference to an image.
type UsageError struct {
	Reference string
	problem   string // "" if there is no more to say than that
}

func (e *UsageError) Error() string {
	switch {
	case e.problem != "":
		return fmt.Sprintf("%q is not an image reference: %s", e.Reference, line(e.problem))
	case unsupported(e.Reference):
		return fmt.Sprintf("%q is kept in a way that is not supported", e.Reference)
	}
	return fmt.Sprintf("%q is not an image reference", e.Reference)
}

// unsupported says whether a reference is one that podman and skopeo read and we
// do not (containers-transports(5)).
func unsupported(ref string) bool {
	transport, _, ok := strings.Cut(ref, ":")
	switch transport {
	case "containers-storage", "dir", "ostree", "sif":
		return ok
	}
	return false
}

// Hint says how to write a reference.
func (e *UsageError) Hint() string {
	if e.problem != "" {
		transport, _, _ := strings.Cut(e.Reference, ":")
		return "such a reference is " + map[Transport]string{
			OCILayout:     "oci:DIR[:TAG] or oci:DIR@DIGEST",
			OCIArchive:    "oci-archive:FILE[:TAG] or oci-archive:FILE@DIGEST",
			DockerArchive: "docker-archive:FILE[:NAME[:TAG]]",
			DockerDaemon:  "docker-daemon:NAME[:TAG] or docker-daemon:ID",
		}[Transport(transport)]
	}
	switch {
	case unsupported(e.Reference):
		return "copy it: skopeo copy " + e.Reference + " oci:DIR:TAG"
	case strings.Contains(e.Reference, "://"):
		return "leave out the " + e.Reference[:strings.Index(e.Reference, "://")+3]
	case strings.ToLower(e.Reference) != e.Reference:
		return "a reference is [REGISTRY/]REPOSITORY[:TAG][@DIGEST], and a repository is lower-case"
	}
	return "a reference is [REGISTRY/]REPOSITORY[:TAG][@DIGEST]"
}

// An UnsupportedError says that a reference leads to something that this package
// does not read or write.
type UnsupportedError struct {
	Image     string          // the reference
	MediaType types.MediaType // of the manifest
	what      string
	hint      string
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("%s is %s", e.Image, e.what)
}

// Hint says what to do instead, "" if there is nothing.
func (e *UnsupportedError) Hint() string { return e.hint }

// An Error says in one line what could not be done with an image and why. It
// holds no secrets: neither credentials nor the queries of signed URLs.
type Error struct {
	Image  string // the reference
	doing  string
	reason string
	hint   string
	err    error
}

func (e *Error) Error() string { return e.doing + " " + e.Image + ": " + e.reason }

// Hint says what may help, "" if nothing is known to.
func (e *Error) Hint() string { return e.hint }

// Unwrap returns the cause. Its text may hold secrets.
func (e *Error) Unwrap() error { return e.err }

// explain makes an error of what went wrong with reading or writing an image in a
// repository, or if that is the zero value where else it is kept, unless it is
// one.
func explain(doing, image string, repo name.Repository, write bool, err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	e := &Error{Image: image, doing: doing, err: err}
	// What an added layer is made of may come from the network too, and is none
	// of the registry's business.
	if content, ok := errors.AsType[*contentError](err); ok {
		e.reason = strip(content)
		if cause, ok := errors.AsType[interface {
			error
			Hint() string
		}](content); ok {
			e.hint = cause.Hint()
		}
		return e
	}
	if repo == (name.Repository{}) {
		e.reason, e.hint = diagnoseLocal(err)
	} else {
		e.reason, e.hint = diagnose(repo, write, err)
	}
	return e
}

// A hintError is an error with what may help.
type hintError struct {
	error
	hint string
}

func (e *hintError) Unwrap() error { return e.error }

// diagnoseLocal is diagnose for what is not in a registry.
func diagnoseLocal(err error) (reason, hint string) {
	if errors.Is(err, context.Canceled) {
		return "interrupted", ""
	}
	if e, ok := errors.AsType[*hintError](err); ok {
		hint = e.hint
	}
	return redact(err), hint
}

func diagnose(repo name.Repository, write bool, err error) (reason, hint string) {
	host := repo.RegistryStr()
	if e := certificateError(err); e != nil {
		return host + " has a certificate that cannot be trusted: " + line(e.Error()),
			"add its authority to the system's certificates or to SSL_CERT_FILE, or use --insecure"
	}
	if answer, ok := errors.AsType[*transport.Error](err); ok {
		return diagnoseAnswer(repo, write, answer)
	}
	if errors.Is(err, context.Canceled) {
		return "interrupted", ""
	}
	if e, ok := errors.AsType[*privateError](err); ok {
		return e.Error(), "if that is intended, use --insecure"
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		if dns.IsNotFound {
			return "there is no host " + dns.Name, "check the registry's name, and the network"
		}
		return "looking up " + dns.Name + " did not work: " + line(dns.Err), "check the network and its name servers"
	}
	switch {
	case errors.Is(err, http.ErrSchemeMismatch):
		return host + " speaks HTTP, not HTTPS", "if that is intended, use --insecure"
	case errors.Is(err, syscall.ECONNREFUSED):
		return host + " refused the connection", "check that a registry listens there"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return host + " cannot be reached", "check the network"
	}
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		return host + " did not answer in time", "check the network, and whether a proxy is needed (HTTPS_PROXY)"
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return host + " broke the connection", ""
	}
	// A URL at the registry would name the image again.
	if e, ok := errors.AsType[*url.Error](err); ok {
		if u, parseErr := url.Parse(e.URL); parseErr == nil && u.Host == host {
			return host + ": " + redact(e.Err), ""
		}
	}
	return redact(err), ""
}

// diagnoseAnswer is diagnose for an answer that says no.
func diagnoseAnswer(repo name.Repository, write bool, answer *transport.Error) (reason, hint string) {
	host := repo.RegistryStr()
	status := fmt.Sprintf("%d %s", answer.StatusCode, http.StatusText(answer.StatusCode))
	var code transport.ErrorCode
	if len(answer.Errors) > 0 {
		code = answer.Errors[0].Code
		status = line(fmt.Sprintf("%d %s", answer.StatusCode, code))
	}

	blob := answer.Request != nil && strings.Contains(answer.Request.URL.Path, "/blobs/")
	switch {
	case code == transport.ManifestBlobUnknownErrorCode, code == transport.BlobUnknownErrorCode,
		answer.StatusCode == http.StatusNotFound && blob && !write:
		return fmt.Sprintf("%s lacks a part of the image (%s)", host, status), "push the source image again"
	case answer.StatusCode == http.StatusTooManyRequests:
		hint := "try again later"
		if host == name.DefaultRegistry {
			hint = "log in with docker login, or try again later: Docker Hub limits anonymous pulls for hours, and bursts for minutes"
		}
		return fmt.Sprintf("%s received too many requests (%s)", host, status), hint
	case answer.StatusCode == http.StatusUnauthorized:
		login := "docker login"
		if host != name.DefaultRegistry {
			login += " " + host
		}
		return fmt.Sprintf("%s wants other credentials (%s)", host, status), "log in with " + login + ", or check the name"
	case answer.StatusCode == http.StatusForbidden:
		access := "pull from"
		if write {
			access = "push to"
		}
		return fmt.Sprintf("%s denied access (%s)", host, status),
			fmt.Sprintf("check that the account you logged in with may %s %s", access, repo)
	case code == transport.BlobUploadUnknownErrorCode:
		return fmt.Sprintf("%s forgot an upload (%s)", host, status), "if several servers are behind its name, they need a common storage and secret"
	case answer.StatusCode == http.StatusNotFound && write:
		hint := "the registry may want the repository to be created before a push"
		if strings.Contains(host, ".dkr.ecr.") {
			hint = "create it: aws ecr create-repository --repository-name " + repo.RepositoryStr()
		}
		return fmt.Sprintf("%s has no repository %s (%s)", host, repo.RepositoryStr(), status), hint
	case answer.StatusCode == http.StatusNotFound:
		what := "such image"
		if code == transport.NameUnknownErrorCode {
			what = "repository " + repo.RepositoryStr()
		}
		return fmt.Sprintf("%s has no %s (%s)", host, what, status), "check the name; some registries also say so to who has not logged in"
	}
	var messages []string
	for _, d := range answer.Errors {
		messages = append(messages, d.Message)
	}
	reason = fmt.Sprintf("%s answered %s", host, status)
	if s := line(strings.Join(messages, "; ")); s != "" {
		reason += ": " + s
	}
	if transient(answer.StatusCode) {
		hint = "try again later"
	}
	return reason, hint
}

var (
	userinfo = regexp.MustCompile(`//[^/@\s"]*@`)
	query    = regexp.MustCompile(`\?[^\s"]+`)
)

// redact is line of what strip leaves.
func redact(err error) string { return line(strip(err)) }

// strip is the first line of an error's text without the parts of URLs that can
// be secret.
func strip(err error) string {
	s := userinfo.ReplaceAllString(err.Error(), "//")
	return firstLine(query.ReplaceAllString(s, ""))
}

// line is the first line of a text from outside, short and printable.
func line(s string) string {
	s = firstLine(s)
	if r := []rune(s); len(r) > 300 {
		s = string(r[:300]) + "…"
	}
	return s
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
}
