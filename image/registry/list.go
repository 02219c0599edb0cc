package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Digest is what a reference stands for: the digest of the document, which may be
// an index. Of a reference by digest it says whether it is there. In registries it
// costs one request, which Docker Hub does not count as a pull.
//
// The error is an *Error; see IsNotFound.
func (c *Client) Digest(ctx context.Context, ref Reference) (v1.Hash, error) {
	ctx = about(ctx, "asking for "+ref.String())
	if ref.Transport != InRegistry {
		s, err := c.find(ctx, ref)
		if err != nil {
			return v1.Hash{}, explain("asking for", ref.String(), name.Repository{}, false, err)
		}
		return s.Root.Digest, s.Close()
	}
	places, err := c.places(ref.named)
	if err != nil {
		return v1.Hash{}, explain("asking for", ref.String(), ref.inRegistry(), false, err)
	}
	last := len(places) - 1
	for _, mirror := range places[:last] {
		if digest, err := c.digest(elsewhere(ctx), mirror); err == nil {
			return digest, nil
		}
	}
	digest, err := c.digest(ctx, places[last])
	if err != nil {
		return v1.Hash{}, explain("asking for", ref.String(), places[last].Context(), false, err)
	}
	return digest, nil
}

func (c *Client) digest(ctx context.Context, ref name.Reference) (v1.Hash, error) {
	client, err := c.session(ctx, ref.Context(), transport.PullScope)
	if err != nil {
		return v1.Hash{}, err
	}
	r := &repository{c, ref.Context(), client}
	resp, err := r.ask(ctx, http.MethodHead, "manifests", ref.Identifier())
	if err == nil {
		resp.Body.Close()
		if digest, err := v1.NewHash(resp.Header.Get("Docker-Content-Digest")); err == nil {
			return digest, nil
		}
	}
	answer, ok := errors.AsType[*transport.Error](err)
	switch {
	case err == nil: // the header is optional
	case ok && (answer.StatusCode == http.StatusBadRequest || answer.StatusCode == http.StatusMethodNotAllowed || answer.StatusCode == http.StatusNotImplemented):
	default:
		return v1.Hash{}, err
	}
	raw, mediaType, err := c.getManifest(ctx, client, ref)
	if err != nil {
		return v1.Hash{}, err
	}
	if d, ok := ref.(name.Digest); ok {
		return digestAs(d.DigestStr(), raw)
	}
	return NewDocument(mediaType, raw).Digest, nil
}

// IsNotFound says of an error whether a registry gave it because it has no such
// repository, tag or manifest, or says so to who may not see it.
func IsNotFound(err error) bool {
	answer, ok := errors.AsType[*transport.Error](err)
	return ok && answer.StatusCode == http.StatusNotFound &&
		(answer.Request == nil || !strings.Contains(answer.Request.URL.Path, "/blobs/"))
}

// IsDenied says of an error whether a registry gave it because it wants other
// credentials, or because ours do not allow what was asked for. Some, such as
// Docker Hub, also say so of what is not there.
func IsDenied(err error) bool {
	answer, ok := errors.AsType[*transport.Error](err)
	return ok && (answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden)
}

// Tags lists the tags of a repository, [REGISTRY/]REPOSITORY, in the order of its
// registry. The error is a *UsageError or an *Error; see IsNotFound.
func (c *Client) Tags(ctx context.Context, repository string) ([]string, error) {
	repo, err := name.NewRepository(repository, c.nameOptions()...)
	if err != nil {
		return nil, &UsageError{Reference: repository}
	}
	const doing = "listing the tags of"
	ctx = about(ctx, doing+" "+repository)
	var tags []string
	client, err := c.session(ctx, repo, transport.PullScope)
	if err == nil {
		err = c.pages(ctx, client, endpoint(repo, "tags", "list"), func(raw []byte) error {
			var page struct{ Tags []string }
			err := json.Unmarshal(raw, &page)
			tags = append(tags, page.Tags...)
			return err
		})
	}
	if err != nil {
		return nil, explain(doing, repository, repo, false, err)
	}
	return tags, nil
}

// withoutCatalog are registries that list repositories to nobody.
var withoutCatalog = map[string]bool{name.DefaultRegistry: true, "ghcr.io": true, "public.ecr.aws": true}

// Repositories lists the repositories of a registry, without its name, as far as
// it lists them to us: the catalog is no part of the distribution-spec. The error
// is an *Error.
func (c *Client) Repositories(ctx context.Context, registry string) ([]string, error) {
	const doing = "listing the repositories of"
	none := func(reason, hint string, err error) error {
		return &Error{Image: registry, doing: doing, reason: reason, hint: hint, err: err}
	}
	const each = "name each repository, without *"
	reg, err := name.NewRegistry(registry, c.nameOptions()...)
	if err != nil {
		return nil, none("it is not the name of a registry", "give a host such as registry.example.com", err)
	}
	if withoutCatalog[reg.RegistryStr()] {
		return nil, none(reg.RegistryStr()+" does not list its repositories", each, nil)
	}
	ctx = about(ctx, doing+" "+registry)
	var repositories []string
	client, err := c.registrySession(ctx, reg, reg, []string{reg.Scope("")})
	if err == nil {
		first := url.URL{Scheme: reg.Scheme(), Host: reg.RegistryStr(), Path: "/v2/_catalog"}
		err = c.pages(ctx, client, first.String(), func(raw []byte) error {
			var page struct{ Repositories []string }
			err := json.Unmarshal(raw, &page)
			repositories = append(repositories, page.Repositories...)
			return err
		})
	}
	if err == nil {
		return repositories, nil
	}
	if answer, ok := errors.AsType[*transport.Error](err); ok {
		status := fmt.Sprintf("%d %s", answer.StatusCode, http.StatusText(answer.StatusCode))
		switch answer.StatusCode {
		case http.StatusUnauthorized, http.StatusForbidden:
			return nil, none(fmt.Sprintf("%s does not list its repositories to this account (%s)", reg.RegistryStr(), status),
				"log in with docker login "+reg.RegistryStr()+" as one that may list them, or "+each, err)
		case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
			return nil, none(fmt.Sprintf("%s does not list its repositories (%s)", reg.RegistryStr(), status), each, err)
		}
	}
	return nil, explain(doing, registry, reg.Repo(""), false, err)
}

// pageSize is how many names are asked for at a time: the most that
// distribution/distribution gives.
const pageSize = "1000"

// pages reads the pages of a list (distribution-spec, "Listing Tags").
func (c *Client) pages(ctx context.Context, client *http.Client, first string, add func(page []byte) error) error {
	seen := make(map[string]bool)
	for next := first + "?n=" + pageSize; next != ""; {
		if seen[next] {
			return errors.New("the registry's list has no end")
		}
		seen[next] = true
		raw, link, err := c.page(ctx, client, next)
		if answer, ok := errors.AsType[*transport.Error](err); ok && answer.StatusCode == http.StatusBadRequest && len(seen) == 1 {
			next = first // it has a smaller page
			continue
		}
		if err == nil {
			if err = add(raw); err != nil {
				err = fmt.Errorf("the registry's list is not valid: %w", err)
			}
		}
		if err == nil {
			next, err = nextPage(next, link)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// listLimit is the most that one page of a list can have, in bytes: a registry
// without pages gives all at once.
const listLimit = 64 << 20

func (c *Client) page(ctx context.Context, client *http.Client, u string) (raw []byte, link string, err error) {
	err = c.again(ctx, func() error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
		if err != nil {
			return err
		}
		req.Header.Set("Accept", "application/json")
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if err := transport.CheckError(resp, http.StatusOK); err != nil {
			return err
		}
		if raw, err = io.ReadAll(io.LimitReader(resp.Body, listLimit)); err != nil {
			return &brokenError{"list", err}
		}
		link = resp.Header.Get("Link")
		return nil
	})
	return raw, link, err
}

// nextPage is the URL that a Link header (RFC 8288) says follows, "" if none does.
// It is always at the same host: behind a proxy, registries may know theirs by
// another name.
func nextPage(current, link string) (string, error) {
	for _, l := range strings.Split(link, ",") {
		target, parameters, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(l), "<"), ">")
		if !ok || !strings.Contains(strings.ReplaceAll(parameters, `"`, ""), "rel=next") {
			continue
		}
		u, err := url.Parse(current)
		if err != nil {
			return "", err
		}
		next, err := u.Parse(target)
		if err != nil {
			return "", fmt.Errorf("the registry's list has the next page %q", target)
		}
		next.Scheme, next.Host, next.User = u.Scheme, u.Host, nil
		return next.String(), nil
	}
	return "", nil
}
