package testbed

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// User and Password are the account that the registries of this file know.
const (
	User     = "me"
	Password = "secret"
)

// htpasswd is that account for HTTP basic authentication.
const htpasswd = User + ":$2a$05$9FV.cColo/Ujope67GlUjeDqfmVYZREV5p7bC3XKulUaM8HWQmZoW\n"

// DockerRegistry starts Debian's docker-registry, version 2 of distribution, which
// wants the password of everybody. It returns the address, host:port.
func (b *Bed) DockerRegistry(ctx context.Context) (string, error) {
	dir, err := os.MkdirTemp(b.dir, "docker-registry-")
	if err != nil {
		return "", err
	}
	passwords := filepath.Join(dir, "htpasswd")
	if err := os.WriteFile(passwords, []byte(htpasswd), 0o644); err != nil {
		return "", err
	}
	return b.startDistribution(ctx, "docker-registry", dir, map[string]any{
		"htpasswd": map[string]any{"realm": "test", "path": passwords},
	})
}

// Distribution starts the CNCF's registry, version 3 of distribution, which wants
// tokens of a server at the address realm. It returns its own address, host:port.
// It is built from the module beside Options.Recipes if the cache does not have
// it.
func (b *Bed) Distribution(ctx context.Context, realm string, tokens *Tokens) (string, error) {
	programs, err := b.module(ctx, "distribution", ".")
	if err != nil {
		return "", fmt.Errorf("building distribution: %w", err)
	}
	dir, err := os.MkdirTemp(b.dir, "distribution-")
	if err != nil {
		return "", err
	}
	keys, err := tokens.keys()
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "keys.json")
	if err := os.WriteFile(file, keys, 0o644); err != nil {
		return "", err
	}
	return b.startDistribution(ctx, filepath.Join(programs, "distribution"), dir, map[string]any{
		"token": map[string]any{"realm": realm, "service": tokenService, "issuer": tokenIssuer, "jwks": file},
	})
}

// startDistribution starts a registry of either version.
func (b *Bed) startDistribution(ctx context.Context, program, dir string, auth map[string]any) (string, error) {
	addr, err := FreeAddr()
	if err != nil {
		return "", err
	}
	// JSON is YAML.
	conf, err := json.Marshal(map[string]any{
		"version": 0.1,
		"log":     map[string]any{"level": "warn", "accesslog": map[string]any{"disabled": true}},
		"storage": map[string]any{
			"filesystem": map[string]any{"rootdirectory": filepath.Join(dir, "data")},
			"delete":     map[string]any{"enabled": true},
		},
		"http": map[string]any{"addr": addr, "relativeurls": true},
		"auth": auth,
	})
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(file, conf, 0o644); err != nil {
		return "", err
	}
	b.servers.mu.Lock()
	defer b.servers.mu.Unlock()
	// Not bound to ctx: it runs until Close.
	return addr, b.startServer(ctx, addr, exec.Command(program, "serve", file))
}

// Tokens is a token server (distribution, "Token Authentication Specification").
// Who knows the password is granted what they ask for, others what they ask for
// less pushing and deleting, as registries do.
type Tokens struct {
	key ed25519.PrivateKey
}

const (
	tokenService = "registry"
	tokenIssuer  = "testbed"
	tokenKey     = "key" // its ID
)

// NewTokens makes a token server with a key of its own.
func NewTokens() (*Tokens, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	return &Tokens{key}, err
}

// keys is what a registry needs to verify tokens: a JSON Web Key Set (RFC 7517,
// and RFC 8037 for this kind of key).
func (s *Tokens) keys() ([]byte, error) {
	public := s.key.Public().(ed25519.PublicKey)
	return json.Marshal(map[string]any{"keys": []any{map[string]string{
		"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": tokenKey, "x": base64.RawURLEncoding.EncodeToString(public),
	}}})
}

// ServeHTTP implements [http.Handler].
func (s *Tokens) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, password, known := r.BasicAuth()
	if known && (user != User || password != Password) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	type grant struct {
		Type    string   `json:"type"`
		Name    string   `json:"name"`
		Actions []string `json:"actions"`
	}
	access := []grant{}
	for _, scope := range r.URL.Query()["scope"] {
		parts := strings.SplitN(scope, ":", 3) // kind:name:actions
		if len(parts) != 3 {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		g := grant{parts[0], parts[1], []string{}}
		for action := range strings.SplitSeq(parts[2], ",") {
			if known || action == "pull" {
				g.Actions = append(g.Actions, action)
			}
		}
		access = append(access, g)
	}
	now := time.Now().Unix()
	token, err := s.sign(map[string]any{
		"iss": tokenIssuer, "aud": tokenService, "sub": user, "jti": rand.Text(),
		"iat": now, "nbf": now, "exp": now + 300, "access": access,
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"token": token, "expires_in": 300}) //nolint:errcheck // the client is gone
}

// sign makes a JSON Web Token (RFC 7519).
func (s *Tokens) sign(claims map[string]any) (string, error) {
	var parts []string
	for _, part := range []any{map[string]string{"alg": "EdDSA", "typ": "JWT", "kid": tokenKey}, claims} {
		b, err := json.Marshal(part)
		if err != nil {
			return "", err
		}
		parts = append(parts, base64.RawURLEncoding.EncodeToString(b))
	}
	text := strings.Join(parts, ".")
	return text + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(s.key, []byte(text))), nil
}
