package registry

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// Each registry gets the credentials that the environment has for it, and no
// other does.
func TestDefaultKeychain(t *testing.T) {
	dir := t.TempDir()
	helper := func(name, script string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	helper("docker-credential-ecr-login", `read host; [ "$1" = get ] && echo '{"ServerURL":"'$host'","Username":"AWS","Secret":"'$host'"}'`)
	helper("docker-credential-acr-env", `echo '{"Username":"<token>","Secret":"refresh"}'`)
	helper("docker-credential-store", `echo '{"Username":"from","Secret":"store"}'`)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Setenv("HOME", dir)
	t.Setenv("XDG_RUNTIME_DIR", dir)
	t.Setenv("REGISTRY_AUTH_FILE", "")
	t.Setenv("DOCKER_CONFIG", dir)
	t.Setenv("GITHUB_ACTOR", "")
	t.Setenv("GITHUB_TOKEN", "github")
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", serviceAccount(t, dir))
	err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{
		"auths": {"plain.test": {"auth": "dXNlcjpwYXNz"}, "222222222222.dkr.ecr.us-east-1.amazonaws.com": {"auth": "bWU6ZXhwbGljaXQ="}},
		"credHelpers": {"helped.test": "store"}
	}`), 0o600)
	if err != nil {
		t.Fatal(err)
	}

	keychain := defaultKeychain()
	resolve := func(host string) string {
		repo, err := name.NewRepository(host + "/app")
		if err != nil {
			t.Fatal(err)
		}
		auth, err := authn.Resolve(t.Context(), keychain, repo)
		if err != nil {
			t.Fatal(err)
		}
		config, err := authn.Authorization(t.Context(), auth)
		if err != nil {
			t.Fatal(err)
		}
		return config.Username + ":" + config.Password + config.IdentityToken
	}
	ecr, acr := "111111111111.dkr.ecr.eu-west-1.amazonaws.com", "team.azurecr.io"
	for host, want := range map[string]string{
		"plain.test":                 "user:pass",
		"helped.test":                "from:store",
		"ghcr.io":                    "unset:github",
		"europe-docker.pkg.dev":      "_token:google",
		"gcr.io":                     "_token:google",
		ecr:                          "AWS:" + ecr,
		"public.ecr.aws":             "AWS:public.ecr.aws",
		acr:                          ":refresh",
		"other.test":                 ":",
		"ghcr.io.evil.test":          ":",
		"pkg.dev.evil.test":          ":",
		ecr + ".evil.test":           ":",
		acr + ".evil.test":           ":",
		"evil.test-team.azurecr.iox": ":",
		"222222222222.dkr.ecr.us-east-1.amazonaws.com": "me:explicit",
	} {
		if got := resolve(host); got != want {
			t.Errorf("%s gets %s, want %s", host, got, want)
		}
	}

	// A helper without credentials is none.
	keychain = defaultKeychain()
	helper("docker-credential-ecr-login", "exit 1")
	helper("docker-credential-acr-env", "echo credentials not found")
	for _, host := range []string{ecr, acr} {
		if got := resolve(host); got != ":" {
			t.Errorf("%s gets %s", host, got)
		}
	}
}

// serviceAccount is a file of Google credentials that give the token "google".
func serviceAccount(t *testing.T, dir string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"access_token":"google","token_type":"Bearer","expires_in":3600}`)
	}))
	t.Cleanup(s.Close)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	content, err := json.Marshal(map[string]string{
		"type":         "service_account",
		"client_email": "test@project.iam.gserviceaccount.com",
		"private_key":  string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})),
		"token_uri":    s.URL,
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "google.json")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
