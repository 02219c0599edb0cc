// Package registry opens images where they are kept and writes images there: in
// registries, over the OCI distribution-spec (v1.1), in OCI layouts, and in
// Docker's archives and engine.
//
// All of it is streamed and verified. What the place keeps stays byte for byte,
// and what it stands for changes in one step, at the end.
//
// Authentication is go-containerregistry's (remote/transport, authn). Its
// remote.Puller and remote.Pusher are not used: they wait without regard to the
// context and to Retry-After, ask for blobs that are known to be there, say
// nothing about refused mounts, block a reader that opens more layers than they
// have jobs, cannot go on with an interrupted download, and need more round trips.
package registry

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Options configure a Client. The zero value is usable.
type Options struct {
	// Insecure allows plain HTTP, certificates that cannot be verified, and
	// registries that refer to another host by a private address. At loopback and
	// private addresses registries may speak plain HTTP anyway.
	Insecure bool
	// Jobs is how many blobs a push handles at a time, 4 if zero.
	Jobs int
	// UserAgent is the product that requests name: "imgwrap/1.2.3".
	UserAgent string
	// Keychain has the credentials: by default those of the docker or podman
	// configuration and its credential helpers, and those that the environment has
	// for the registries of Google (application default credentials, gcloud), GitHub
	// (GITHUB_TOKEN), Amazon and Microsoft (docker-credential-ecr-login,
	// docker-credential-acr-env).
	Keychain authn.Keychain
	// Configs, if set, keeps configs of images in registries, so that none is read
	// twice.
	Configs Configs
	// Waiting, if set, is told in one line what went wrong, with which image or
	// layer, and is to be tried again after the duration. It is told once of what
	// goes wrong repeatedly, and once per host of that it wants us to wait, which all
	// requests to it then do. It is called from several goroutines.
	Waiting func(cause string, d time.Duration)
	// Notice, if set, is told in one line what may soon go wrong: Docker Hub's limit
	// on pulls is used up. It is called from several goroutines.
	Notice func(text string)
	// Transport sends the requests, in place of one with Go's defaults.
	Transport http.RoundTripper
}

// Configs is where configs of images are kept from one use of a Client to the
// next. It may be used by several goroutines.
type Configs interface {
	// Config returns the config that has the digest, if it is there.
	Config(v1.Hash) ([]byte, bool)
	PutConfig(v1.Hash, []byte)
}

// A Client reads from and writes to registries. It asks a registry how to
// authenticate, and a keychain for credentials, once for all that it does there.
// It is safe for concurrent use.
type Client struct {
	insecure  bool
	jobs      int
	keychain  authn.Keychain
	configs   Configs // may be nil
	transport http.RoundTripper
	wait      waiter

	auths    cache[authn.Authenticator]
	sessions cache[*http.Client]
	answers  sync.Map // to GET /v2/, by scheme and host
	begun    uploads  // by CheckPush
	together gatherings
	layers   whereabouts        // of pushes
	locks    cache[*sync.Mutex] // by the path or name of what is written
	mirrors  func() ([]mirrored, error)
}

// New returns a client.
func New(o Options) *Client {
	base := o.Transport
	if base == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.DialContext = patient(t.DialContext)
		t.MaxIdleConnsPerHost = 32 // nearly all requests go to one host
		if o.Insecure {
			t.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // asked for
		}
		base = t
	}
	c := &Client{
		insecure: o.Insecure,
		jobs:     o.Jobs,
		keychain: o.Keychain,
		configs:  o.Configs,
		mirrors:  sync.OnceValues(readMirrors),
	}
	c.wait = func(ctx context.Context, d time.Duration, cause error) error {
		if text, first := news(ctx, cause); first && o.Waiting != nil {
			o.Waiting(text, d)
		}
		return sleep(ctx, d)
	}
	if c.jobs <= 0 {
		c.jobs = 4
	}
	if c.keychain == nil {
		c.keychain = defaultKeychain()
	}
	c.transport = transport.NewUserAgent(&retrier{
		inner:  &noter{inner: base, answers: &c.answers},
		wait:   func(ctx context.Context, d time.Duration, cause error) error { return c.wait(ctx, d, cause) },
		notice: o.Notice,
	}, o.UserAgent)
	return c
}

// session returns an HTTP client that is allowed the actions ("pull", or
// "push,pull") in repo, and to pull from the other repositories.
func (c *Client) session(ctx context.Context, repo name.Repository, actions string, others ...name.Repository) (*http.Client, error) {
	// Some registries look at the first scope only: the one that matters most.
	scopes := []string{repo.Scope(actions)}
	for _, other := range others {
		scopes = append(scopes, other.Scope(transport.PullScope))
	}
	return c.registrySession(ctx, repo.Registry, repo, scopes)
}

// registrySession returns an HTTP client that is allowed the scopes in a registry
// with the credentials for the resource.
func (c *Client) registrySession(ctx context.Context, registry name.Registry, resource authn.Resource, scopes []string) (*http.Client, error) {
	key := registry.Scheme() + "://" + registry.RegistryStr() + " " + strings.Join(scopes, " ")
	return c.sessions.get(key, func() (*http.Client, error) {
		auth, err := c.auth(ctx, resource)
		if err != nil {
			return nil, err
		}
		t, err := transport.NewWithContext(ctx, registry, auth, c.transport, scopes)
		if err != nil {
			return nil, err
		}
		return &http.Client{Transport: t, CheckRedirect: c.checkRedirect}, nil
	})
}

// auth returns the credentials for a repository or a registry.
func (c *Client) auth(ctx context.Context, resource authn.Resource) (authn.Authenticator, error) {
	return c.auths.get(resource.String(), func() (authn.Authenticator, error) {
		auth, err := authn.Resolve(ctx, c.keychain, resource)
		if err != nil {
			return nil, fmt.Errorf("reading credentials: %w", err)
		}
		return auth, nil
	})
}

// nameOptions are those for go-containerregistry's names.
func (c *Client) nameOptions() []name.Option {
	if c.insecure {
		return []name.Option{name.Insecure}
	}
	return nil
}

// A noter notes what registries answer to the question how to authenticate, and
// asks each once: go-containerregistry asks it for each repository.
type noter struct {
	inner   http.RoundTripper
	answers *sync.Map
	asking  cache[*sync.Mutex] // by scheme and host
}

// An answer is one to that question.
type answer struct {
	status int
	header http.Header
}

func (n *noter) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method != http.MethodGet || req.URL.Path != "/v2/" {
		return n.inner.RoundTrip(req)
	}
	key := req.URL.Scheme + "://" + req.URL.Host
	lock, err := n.asking.get(key, func() (*sync.Mutex, error) { return new(sync.Mutex), nil })
	if err != nil {
		return nil, err
	}
	lock.Lock()
	defer lock.Unlock()
	if a, ok := n.answers.Load(key); ok {
		a := a.(answer)
		return &http.Response{
			StatusCode: a.status, Status: fmt.Sprintf("%d %s", a.status, http.StatusText(a.status)),
			Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			Header: a.header.Clone(), Body: http.NoBody, Request: req,
		}, nil
	}
	if _, plain := n.answers.Load("http://" + req.URL.Host); plain {
		return nil, http.ErrSchemeMismatch // as it was found before
	}
	resp, err := n.inner.RoundTrip(req)
	if err == nil && (resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusUnauthorized) {
		n.answers.Store(key, answer{resp.StatusCode, resp.Header.Clone()})
	}
	return resp, err
}

// open says whether the registry wants no authentication, and whether we know.
func (c *Client) open(registry name.Registry) (open, known bool) {
	a, known := c.answers.Load(registry.Scheme() + "://" + registry.RegistryStr())
	return known && a.(answer).status == http.StatusOK, known
}

// checkRedirect follows as net/http does, but not to where a registry has no
// business to send us.
func (c *Client) checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return fmt.Errorf("stopped after %d redirects", len(via))
	}
	return c.checkHost(via[0].URL.Hostname(), req.URL.Hostname())
}

// checkHost refuses to be sent from one host to another that is an address in a
// private network, such as a cloud's metadata service.
func (c *Client) checkHost(from, to string) error {
	if from == to || c.insecure {
		return nil
	}
	if ip := net.ParseIP(to); ip != nil && (ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsUnspecified()) {
		return &privateError{from, to}
	}
	return nil
}

type privateError struct{ from, to string }

func (e *privateError) Error() string {
	return e.from + " redirects to the private address " + e.to
}

// A cache makes a value per key when it is first asked for. Callers that ask
// meanwhile wait; what cannot be made is tried again by the next.
type cache[T any] struct {
	mu sync.Mutex
	m  map[string]*entry[T]
}

type entry[T any] struct {
	mu    sync.Mutex
	made  bool
	value T
}

func (c *cache[T]) get(key string, create func() (T, error)) (T, error) {
	c.mu.Lock()
	if c.m == nil {
		c.m = make(map[string]*entry[T])
	}
	e := c.m[key]
	if e == nil {
		e = new(entry[T])
		c.m[key] = e
	}
	c.mu.Unlock()

	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.made {
		value, err := create()
		if err != nil {
			return value, err
		}
		e.value, e.made = value, true
	}
	return e.value, nil
}
