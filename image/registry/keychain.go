package registry

import (
	"context"
	"encoding/json"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/authn/github"
	"github.com/google/go-containerregistry/pkg/v1/google"
)

// defaultKeychain has the credentials that people expect to be used: those of the
// docker or podman configuration and the credential helpers it names, or else
// those that the environment has for the registries of Google, GitHub, Amazon and
// Microsoft.
//
// Amazon's and Microsoft's are left to their helper programs. Linked in, Amazon's
// would add 5.9 MB to a program of 14.7 MB, and Microsoft's 13 modules of an SDK
// that was archived in 2023, to add a client that sends its token to any host with
// ".azurecr.io" in its name. Google's adds 0.6 MB.
func defaultKeychain() authn.Keychain {
	return authn.NewMultiKeychain(
		// Tokens of cloud registries' helpers live for an hour or more.
		authn.RefreshingKeychain(authn.DefaultKeychain, 30*time.Minute),
		google.Keychain,
		github.Keychain,
		authn.RefreshingKeychain(cloudKeychain{}, 30*time.Minute),
	)
}

// A cloudKeychain asks the credential helper program of a cloud for its
// registries, configured or not, if it is there and knows credentials.
type cloudKeychain struct{}

// cloudHelpers are the programs by the registries they are for.
var cloudHelpers = []struct {
	registry *regexp.Regexp
	program  string
}{
	{regexp.MustCompile(`^(\d{12}\.dkr[.-]ecr(-fips)?\.[a-z0-9-]+\.(amazonaws\.com(\.cn)?|on\.aws)|public\.ecr\.aws)$`), "docker-credential-ecr-login"},
	{regexp.MustCompile(`^[a-z0-9-]+\.azurecr\.(io|cn|us|de)$`), "docker-credential-acr-env"},
}

func (k cloudKeychain) Resolve(target authn.Resource) (authn.Authenticator, error) {
	return k.ResolveContext(context.Background(), target)
}

func (cloudKeychain) ResolveContext(ctx context.Context, target authn.Resource) (authn.Authenticator, error) {
	host := target.RegistryStr()
	for _, helper := range cloudHelpers {
		if !helper.registry.MatchString(host) {
			continue
		}
		cmd := exec.CommandContext(ctx, helper.program, "get") //nolint:gosec // one of two names
		cmd.Stdin = strings.NewReader(host)
		out, err := cmd.Output()
		var answer struct{ Username, Secret string }
		if err != nil || json.Unmarshal(out, &answer) != nil {
			return authn.Anonymous, nil //nolint:nilerr // not there, or without an account in this cloud
		}
		if answer.Username == "<token>" { // docker's word for an identity token
			return authn.FromConfig(authn.AuthConfig{IdentityToken: answer.Secret}), nil
		}
		return authn.FromConfig(authn.AuthConfig{Username: answer.Username, Password: answer.Secret}), nil
	}
	return authn.Anonymous, nil
}
