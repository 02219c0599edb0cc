//go:build e2e

package main_test

import (
	"archive/zip"
	"bufio"
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"go.yaml.in/yaml/v3"

	"github.com/imgwrap/imgwrap/cmd/internal/testbed"
)

// TestE2EPipelines checks docs/ci by the linters and schemas of GitHub Actions and
// GitLab CI, and runs what is there as its users do: by act, gitlab-ci-local, and
// Jenkins' language, in repositories of their own, against a registry. Only the
// registry's name differs, and what services do has stand-ins: logging in, keeping
// files, opening pull requests.
func TestE2EPipelines(t *testing.T) {
	bed := sharedBed(t)
	t.Parallel()
	w := build(t, bed)
	tools, err := bed.PipelineTools(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := &pipelines{bed: bed, w: w, tools: tools, env: append(installEnv(t), "PATH="+tools+":"+pathWithout(t, "imgwrap"))}
	t.Run("lint", p.lint)
	t.Run("github", p.github)
	t.Run("gitlab", p.gitlab)
	t.Run("jenkins", p.jenkins)
}

type pipelines struct {
	bed   *testbed.Bed
	w     imgwrap
	tools string   // directory of programs
	env   []string // of jobs, beside those of the tests
}

const ciDocs = "../../docs/ci"

// command is a command with the tools.
func (p *pipelines) command(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(p.tools, args[0]), args[1:]...)
	cmd.Dir = dir
	home := t.TempDir()
	cmd.Env = slices.Concat(os.Environ(), p.env, []string{"HOME=" + home, "XDG_CACHE_HOME=" + home})
	return cmd
}

// lint asks those whose formats they are, or who know them best.
func (p *pipelines) lint(t *testing.T) {
	check := func(args ...string) {
		t.Helper()
		if out, err := p.command(t, "", args...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", args[0], err, out)
		}
	}
	workflows, action := glob(t, ciDocs+"/github/workflows/*.yml"), glob(t, ciDocs+"/github/action.yml")
	pinned := regexp.MustCompile(`^[\w-]+/[\w-]+@[0-9a-f]{40}$`)
	for _, uses := range usesOf(t, append(workflows, action...)...) {
		if uses != "imgwrap/imgwrap/docs/ci/github@v1" && !pinned.MatchString(uses) {
			t.Errorf("%s is not pinned to a commit", uses)
		}
	}
	check(append([]string{"actionlint", "-shellcheck=" + filepath.Join(p.tools, "shellcheck")}, workflows...)...)
	check(append([]string{"check-jsonschema", "--builtin-schema=vendor.github-workflows"}, workflows...)...)
	check(append([]string{"check-jsonschema", "--builtin-schema=vendor.github-actions"}, action...)...)
	templates := glob(t, ciDocs+"/gitlab/templates/*.yml") // whose schema gitlab-ci-local checks, with inputs
	for shell, scripts := range map[string][]string{
		"bash": scriptsOf(t, "run", action...),
		"sh":   append(scriptsOf(t, "before_script", templates...), scriptsOf(t, "script", templates...)...),
	} {
		for _, script := range scripts {
			file := filepath.Join(t.TempDir(), "script")
			p.write(t, file, script)
			check("shellcheck", "--shell="+shell, "--exclude=SC2153,SC2154", file) // variables come from elsewhere
		}
	}
	check(append([]string{"check-jsonschema", "--builtin-schema=vendor.gitlab-ci", "--data-transform=gitlab-ci"}, glob(t, ciDocs+"/gitlab/.gitlab-ci.yml")...)...)
}

// scriptsOf are the scripts below a key in YAML files.
func scriptsOf(t *testing.T, key string, files ...string) (scripts []string) {
	t.Helper()
	var walk func(n *yaml.Node)
	walk = func(n *yaml.Node) {
		for i, c := range n.Content {
			if n.Kind == yaml.MappingNode && i%2 == 1 && n.Content[i-1].Value == key {
				if c.Kind == yaml.ScalarNode {
					scripts = append(scripts, c.Value)
				}
				for _, line := range c.Content {
					scripts = append(scripts, line.Value)
				}
				continue
			}
			walk(c)
		}
	}
	for _, file := range files {
		documents := yaml.NewDecoder(bytes.NewReader(readFile(t, file)))
		for {
			var n yaml.Node
			if err := documents.Decode(&n); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			walk(&n)
		}
	}
	if len(scripts) == 0 {
		t.Fatalf("no %s in %q", key, files)
	}
	return scripts
}

// glob are the files of a pattern, one at least.
func glob(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("finding %s: %d, %v", pattern, len(files), err)
	}
	return files
}

// github runs the workflows of docs/ci/github by act.
func (p *pipelines) github(t *testing.T) {
	g := &github{pipelines: p, store: t.TempDir(), actions: t.TempDir()}
	for name, steps := range standIns {
		g.write(t, filepath.Join(g.actions, name, "action.yml"), "name: stand-in\n"+steps)
	}
	if err := os.CopyFS(filepath.Join(g.actions, "imgwrap/imgwrap/docs/ci/github"), os.DirFS(filepath.Join(ciDocs, "github"))); err != nil {
		t.Fatal(err)
	}
	t.Run("wrap", g.wrap)
	t.Run("container", g.container)
	t.Run("quoting", g.quoting)
	t.Run("bulk", g.bulk)
	t.Run("promote", g.promote)
}

// wrap is the workflow of an application.
func (g *github) wrap(t *testing.T) {
	source, err := g.bed.Push(t.Context(), "trixie-flask", "shop/cart:v1.4")
	if err != nil {
		t.Fatal(err)
	}
	run := g.run(t, newRepository(t, onGitHub), "wrap.yml", "push", `{"ref": "refs/tags/v1.4"}`, "BUILT="+source.String())
	got := run.outputs("image", "otel")
	ref := g.bed.Registry() + "/shop/cart:v1.4-otel"
	g.checkWrapped(t, ref, source, installed)
	wrapped := digest(t, image(t, ref)).String()
	if want := map[string]string{"image": ref, "tag": "v1.4-otel", "digest": wrapped}; !maps.Equal(got, want) {
		t.Errorf("outputs %q, want %q", got, want)
	}
	checkSummary(t, run.summaries("image"), ref)
	if out := run.stdout("deploy"); !strings.Contains(out, "deploying "+ref+"@"+wrapped) {
		t.Errorf("deploy printed %q", out)
	}
}

// hostile is the name of a service that would be commands if it were part of a script.
const hostile = "$(touch /hostile)`touch /hostile`\"; touch /hostile; ' && exit 1 #"

// checkQuoting checks that an image was wrapped with the name, and with an argument
// that has a space.
func (p *pipelines) checkQuoting(t *testing.T, ref string) {
	t.Helper()
	config, err := image(t, ref).ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"OTEL_SERVICE_NAME=" + hostile, "OTEL_RESOURCE_ATTRIBUTES=application=a%20b"} {
		if !slices.Contains(config.Config.Env, want) {
			t.Errorf("no %s in %q", want, config.Config.Env)
		}
	}
}

// quoting gives the action inputs that a shell would take apart.
func (g *github) quoting(t *testing.T) {
	if _, err := g.bed.Push(t.Context(), "trixie-flask", "shop/quoting:v1.4"); err != nil {
		t.Fatal(err)
	}
	repo := newRepository(t, onGitHub)
	inputs, err := json.Marshal(map[string]string{
		"image": g.bed.Registry() + "/shop/quoting:v1.4", "service-name": hostile, "args": "--application=a b\n--native=false",
	})
	if err != nil {
		t.Fatal(err)
	}
	g.write(t, repo+"/.github/workflows/quoting.yml", `on: push
jobs:
  wrap:
    runs-on: ubuntu-latest
    steps: [{uses: imgwrap/imgwrap/docs/ci/github@v1, with: `+string(inputs)+"}]\n")
	g.run(t, repo, "quoting.yml", "push", "{}")
	g.checkQuoting(t, g.bed.Registry()+"/shop/quoting:v1.4-otel")
}

// container is the workflow that another one calls. docker is a script that runs the
// program itself, with the variables that a container would have.
func (g *github) container(t *testing.T) {
	if _, err := g.bed.Push(t.Context(), "trixie-flask", "shop/container:v1.4"); err != nil {
		t.Fatal(err)
	}
	script := `#!/bin/sh
[ "$1" = run ] || exit
shift
for flag; do
	shift
	case $flag in
	--env=*) export "${flag#--env=}" ;;
	-*) ;;
	*) break ;;
	esac
done
[ "$flag" = ` + g.bed.Registry() + `/shop/imgwrap ] && [ "$DOCKER_CONFIG" = /docker ] && exec ` + g.w.program + ` "$@"
`
	if err := os.WriteFile(filepath.Join(g.tools, "docker"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	repo := newRepository(t, onGitHub)
	g.write(t, repo+"/.github/workflows/caller.yml", `on: push
jobs:
  wrap:
    uses: ./.github/workflows/wrap-container.yml
    with: {image: "`+g.bed.Registry()+`/shop/container:v1.4"}
  deploy:
    needs: wrap
    runs-on: ubuntu-latest
    steps: [{run: 'echo "deploying ${{ needs.wrap.outputs.image }}"'}]
`)
	run := g.run(t, repo, "wrap-container.yml", "push", "{}")
	ref := g.bed.Registry() + "/shop/container:v1.4-otel"
	if out := run.stdout("deploy"); out != "deploying "+ref+"@"+digest(t, image(t, ref)).String()+"\n" {
		t.Errorf("deploy printed %q", out)
	}
}

// bulk is the workflow that wraps many images.
func (g *github) bulk(t *testing.T) {
	repo := newRepository(t, onGitHub)
	g.writeList(t, filepath.Join(repo, "images.yaml"), "github-fleet")
	run := g.run(t, repo, "bulk.yml", "workflow_dispatch", "{}")
	g.checkFleet(t, "github-fleet", run.summaries("wrap"), glob(t, g.store+"/report-*/report.xml"))
}

// promote are the workflows of manifests: the check of pull requests fails until the
// changes that the other one asks for are there.
func (g *github) promote(t *testing.T) {
	repo := newRepository(t, onGitHub)
	g.writeManifests(t, repo, "github-gitops")
	check := func(want int) {
		t.Helper()
		r, err := g.try(t, repo, "promote-check.yml", "pull_request", "{}")
		if got := strings.Contains(r.messages(), "exit status 4"); got != (want == 4) || (err == nil) != (want == 0) {
			t.Errorf("the check: %v, want exit code %d\n%s", err, want, r.messages())
		}
	}
	check(4)
	ref := g.bed.Registry() + "/github-gitops/cart:1.4-otel"
	for _, environment := range []struct{ name, payload string }{
		{"staging", "{}"},
		{"production", `{"inputs": {"production": "true"}}`},
	} {
		r := g.run(t, repo, "promote.yml", "workflow_dispatch", environment.payload)
		request := filepath.Join(g.store, "promote", environment.name)
		if rest := readFile(t, request+"/rest"); len(rest) > 0 {
			t.Errorf("the change of %s leaves out\n%s", environment.name, rest)
		}
		for _, text := range []string{string(readFile(t, request+"/body")), r.summaries("promote")} {
			if want := "| `" + ref + "` | `" + digest(t, image(t, ref)).String() + "` |"; !strings.Contains(text, want) {
				t.Errorf("%s: the report lacks %s:\n%s", environment.name, want, text)
			}
		}
		output(t, "git", "-C", repo, "apply", request+"/diff")
		g.checkPinned(t, repo, environment.name, ref)
	}
	check(0)
}

// checkPinned checks that the manifest of an environment names a wrapped image.
func (p *pipelines) checkPinned(t *testing.T, dir, environment, ref string) {
	t.Helper()
	want := "          image: " + ref + "@" + digest(t, image(t, ref)).String() + "\n"
	if text := string(readFile(t, filepath.Join(dir, environment, "cart.yaml"))); !strings.HasSuffix(text, want) {
		t.Errorf("%s has\n%s\nwant %s", environment, text, want)
	}
}

// writeManifests pushes an image and writes manifests of two environments that name
// it.
func (p *pipelines) writeManifests(t *testing.T, dir, repository string) {
	t.Helper()
	if _, err := p.bed.Push(t.Context(), "trixie-flask", repository+"/cart:1.4"); err != nil {
		t.Fatal(err)
	}
	for _, environment := range []string{"staging", "production"} {
		p.write(t, filepath.Join(dir, environment, "cart.yaml"), `apiVersion: apps/v1
kind: Deployment
metadata: {name: cart}
spec:
  selector: {matchLabels: {app: cart}}
  template:
    metadata: {labels: {app: cart}}
    spec:
      containers:
        - name: cart
          image: `+p.bed.Registry()+"/"+repository+"/cart:1.4\n")
	}
}

// fleet are images that are wrapped together, by the names of their recipes.
var fleet = map[string]string{"cart": "trixie-flask", "search": "trixie-flask", "web": "bookworm-gunicorn"}

// writeList pushes the fleet, and an image without Python, and writes the list of
// them.
func (p *pipelines) writeList(t *testing.T, file, repository string) {
	t.Helper()
	if _, err := p.bed.PushImage(t.Context(), empty.Image, repository+"/proxy:1.0"); err != nil {
		t.Fatal(err)
	}
	text := "images:\n  - " + p.bed.Registry() + "/" + repository + "/proxy:1.0\n"
	for name, recipe := range fleet {
		if _, err := p.bed.Push(t.Context(), recipe, repository+"/"+name+":1.0"); err != nil {
			t.Fatal(err)
		}
		text += "  - " + p.bed.Registry() + "/" + repository + "/" + name + ":1.0\n"
	}
	p.write(t, file, text)
}

// checkFleet checks what jobs made of the list, each a part of it, and what their
// summaries and reports for machines tell.
func (p *pipelines) checkFleet(t *testing.T, repository, summary string, reports []string) {
	t.Helper()
	if len(reports) != 4 {
		t.Fatalf("%d reports %q, want one of each of 4 jobs", len(reports), reports)
	}
	told := map[string]int{}
	for _, file := range reports {
		var suite struct {
			Tests    int `xml:"tests,attr"`
			Failures int `xml:"failures,attr"`
			Errors   int `xml:"errors,attr"`
			Cases    []struct {
				Name    string    `xml:"name,attr"`
				Skipped *struct{} `xml:"skipped"`
			} `xml:"testcase"`
		}
		if err := xml.Unmarshal(readFile(t, file), &suite); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if suite.Tests != len(suite.Cases) || suite.Failures+suite.Errors > 0 {
			t.Errorf("%s: %+v", file, suite)
		}
		for _, c := range suite.Cases {
			name, _, _ := strings.Cut(strings.TrimPrefix(c.Name, p.bed.Registry()+"/"+repository+"/"), "@")
			if c.Skipped != nil {
				name += " skipped"
			}
			told[name]++
		}
	}
	want := map[string]int{"proxy:1.0 skipped": 1}
	for name := range fleet {
		want[name+":1.0"]++
		ref := p.bed.Registry() + "/" + repository + "/" + name + ":1.0-otel"
		if row := "| `" + ref + "` | `" + digest(t, image(t, ref)).String() + "` |"; !strings.Contains(summary, row) {
			t.Errorf("the summary lacks %s:\n%s", row, summary)
		}
	}
	if !maps.Equal(told, want) {
		t.Errorf("the reports tell of %v, want %v", told, want)
	}
}

// github is what workflows run in.
type github struct {
	*pipelines
	store   string // directory of what the service keeps
	actions string // directory of the actions, OWNER/NAME
}

// nothing is what an action runs that does nothing.
const nothing = "runs: {using: composite, steps: [{shell: bash, run: 'true'}]}\n"

// standIns are the actions that need the service, or do what is not tested here.
var standIns = map[string]string{
	"actions/setup-go":           nothing,
	"docker/setup-buildx-action": nothing,
	"docker/login-action":        nothing,
	"docker/build-push-action": `
outputs: {digest: {value: "${{ steps.build.outputs.digest }}"}}
runs:
  using: composite
  steps:
    - {id: build, shell: bash, run: 'echo "digest=$BUILT" >> "$GITHUB_OUTPUT"'}
`,
	"actions/upload-artifact": `
inputs: {name: {}, path: {}}
runs:
  using: composite
  steps:
    - {shell: bash, run: 'mkdir -p "$STORE/${{ inputs.name }}" && cp ${{ inputs.path }} "$STORE/${{ inputs.name }}"'}
`,
	"actions/download-artifact": `
inputs: {name: {}}
runs:
  using: composite
  steps:
    - {shell: bash, run: 'cp "$STORE/${{ inputs.name }}"/* .'}
`,
	// It restores the wheels of all tests, as if another run had left them.
	"actions/cache": `
inputs: {path: {}, key: {}, restore-keys: {}}
runs:
  using: composite
  steps:
    - {shell: bash, run: 'mkdir .cache && ln -s "$CACHE/wheels" "$CACHE/layers" .cache'}
`,
	"actions/create-github-app-token": `
inputs: {app-id: {}, private-key: {}}
outputs: {token: {value: secret}}
` + nothing,
	"peter-evans/create-pull-request": `
inputs: {token: {}, branch: {}, add-paths: {}, commit-message: {}, title: {}, body-path: {}}
runs:
  using: composite
  steps:
    - shell: bash
      run: |
        request="$STORE/${{ inputs.branch }}"
        mkdir -p "$request"
        git add -- '${{ inputs.add-paths }}'
        git diff --cached > "$request/diff"
        git status --porcelain | grep -v '^[AM] ' > "$request/rest" || true
        cp '${{ inputs.body-path }}' "$request/body"
`,
}

// run runs a workflow that succeeds.
func (g *github) run(t *testing.T, repo, workflow, event, payload string, env ...string) *githubRun {
	t.Helper()
	r, err := g.try(t, repo, workflow, event, payload, env...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", workflow, err, r.messages())
	}
	return r
}

// onGitHub is the origin of a repository there.
const onGitHub = "https://github.com/shop/cart"

// try runs a workflow of docs/ci, or one that is there already, in a repository's
// files as they are. env are variables of the stand-ins.
func (g *github) try(t *testing.T, repo, workflow, event, payload string, env ...string) (*githubRun, error) {
	t.Helper()
	file := filepath.Join(repo, ".github/workflows", workflow)
	if text, err := os.ReadFile(filepath.Join(ciDocs, "github/workflows", workflow)); err == nil {
		g.write(t, file, strings.ReplaceAll(string(text), "ghcr.io", g.bed.Registry()))
	}
	commit(t, repo)
	payloadFile := filepath.Join(t.TempDir(), "event.json")
	g.write(t, payloadFile, payload)
	args := []string{"act", event, "--json", "--platform=ubuntu-latest=-self-hosted", "--no-cache-server",
		"--eventpath=" + payloadFile, "--secret=GITHUB_TOKEN=secret"}
	for _, e := range append(env, "STORE="+g.store, "CACHE="+g.w.cache, "IMGWRAP_CACHE_DIR="+g.w.cache) {
		args = append(args, "--env="+e)
	}
	for _, uses := range usesOf(t, file, ciDocs+"/github/action.yml") {
		name, ref, _ := strings.Cut(uses, "@")
		name = strings.Join(strings.Split(name, "/")[:2], "/")
		if name != "actions/checkout" { // act's own
			args = append(args, "--local-repository="+name+"@"+ref+"="+filepath.Join(g.actions, name))
		}
	}
	cmd := g.command(t, repo, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, stderr.String())
	}
	r := &githubRun{}
	for lines := bufio.NewScanner(&stdout); lines.Scan(); {
		var e githubEvent
		if json.Unmarshal(lines.Bytes(), &e) == nil {
			r.events = append(r.events, e)
		}
	}
	return r, err
}

// usesOf returns the actions that files use, OWNER/NAME[/PATH]@REF.
func usesOf(t *testing.T, files ...string) []string {
	t.Helper()
	var found []string
	for _, file := range files {
		for line := range strings.Lines(string(readFile(t, file))) {
			if _, uses, ok := strings.Cut(line, "uses: "); ok {
				found = append(found, strings.TrimSuffix(strings.Fields(uses)[0], ","))
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// githubEvent is a line of act's log.
type githubEvent struct {
	JobID   string   `json:"jobID"`
	StepID  []string `json:"stepID"`
	Command string   `json:"command"`
	Name    string   `json:"name"`
	Arg     string   `json:"arg"`
	Content string   `json:"content"`
	Raw     bool     `json:"raw_output"`
	Message string   `json:"msg"`
}

type githubRun struct{ events []githubEvent }

func (r *githubRun) messages() string {
	var b strings.Builder
	for _, e := range r.events {
		fmt.Fprintln(&b, strings.TrimSuffix(e.Message, "\n"))
	}
	return b.String()
}

// outputs are those of a step.
func (r *githubRun) outputs(job, step string) map[string]string {
	outputs := map[string]string{}
	for _, e := range r.events {
		if e.JobID == job && e.Command == "set-output" && slices.Equal(e.StepID, []string{step}) {
			outputs[e.Name] = e.Arg
		}
	}
	return outputs
}

// summaries are those of a job's steps, in one.
func (r *githubRun) summaries(job string) string {
	var b strings.Builder
	for _, e := range r.events {
		if e.JobID == job && e.Command == "summary" && len(e.StepID) == 1 {
			b.WriteString(e.Content)
		}
	}
	return b.String()
}

// stdout is what a job's steps printed.
func (r *githubRun) stdout(job string) string {
	var b strings.Builder
	for _, e := range r.events {
		if e.JobID == job && e.Raw {
			b.WriteString(e.Message)
		}
	}
	return b.String()
}

// gitlab runs the templates of docs/ci/gitlab by gitlab-ci-local.
func (p *pipelines) gitlab(t *testing.T) {
	t.Run("wrap", p.gitlabWrap)
	t.Run("quoting", p.gitlabQuoting)
	t.Run("bulk", p.gitlabBulk)
	t.Run("promote", p.gitlabPromote)
}

// gitlabWrap is the pipeline of an application. buildah builds the image, of what
// is in the registry.
func (p *pipelines) gitlabWrap(t *testing.T) {
	if _, err := p.bed.Push(t.Context(), "trixie-flask", "gitlab/base:1.0"); err != nil {
		t.Fatal(err)
	}
	repo := newRepository(t, onGitLab)
	p.write(t, filepath.Join(repo, "Dockerfile"), "FROM "+p.bed.Registry()+"/gitlab/base:1.0\nLABEL of=gitlab\n")
	p.copyGitLab(t, repo)
	out := p.gitlabCI(t, repo, "", "CI_COMMIT_TAG=v1.4")
	ref := p.bed.Registry() + "/gitlab/cart:v1.4-otel"
	p.checkWrapped(t, ref, digest(t, image(t, p.bed.Registry()+"/gitlab/cart:v1.4")), installed)
	want := digest(t, image(t, ref)).String()
	if !strings.Contains(out, "deploying "+ref+"@"+want) {
		t.Errorf("deploy has not got what was wrapped:\n%s", out)
	}
	checkSummary(t, string(readFile(t, filepath.Join(repo, ".gitlab-ci-local/artifacts/imgwrap/imgwrap.md"))), ref)
}

// checkWrapped checks what the example of an application made of an image.
func (p *pipelines) checkWrapped(t *testing.T, ref string, source v1.Hash, by string) {
	t.Helper()
	config, err := image(t, ref).ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if of := config.Config.Labels["io.imgwrap.source"]; !strings.HasSuffix(of, "@"+source.String()) {
		t.Errorf("made from %s, want %s", of, source)
	}
	if version := config.Config.Labels["io.imgwrap.version"]; version != by {
		t.Errorf("by imgwrap %s, want %s", version, by)
	}
	if env := config.Config.Env; !slices.Contains(env, "OTEL_EXPORTER_OTLP_ENDPOINT=http://collector.observability:4318") {
		t.Errorf("environment %q", env)
	}
}

// checkSummary checks Markdown that tells of a wrapped image.
func checkSummary(t *testing.T, summary, ref string) {
	t.Helper()
	for _, line := range []string{"| Wrapped image | `" + ref + "` |", "| Digest | `" + digest(t, image(t, ref)).String() + "` |"} {
		if !strings.Contains(summary, line+"\n") {
			t.Errorf("the summary lacks %q:\n%s", line, summary)
		}
	}
}

// gitlabQuoting gives the template inputs that a shell would take apart.
func (p *pipelines) gitlabQuoting(t *testing.T) {
	if _, err := p.bed.Push(t.Context(), "trixie-flask", "gitlab/quoting:v1.4"); err != nil {
		t.Fatal(err)
	}
	repo := newRepository(t, onGitLab)
	p.copyGitLab(t, repo)
	inputs, err := json.Marshal(map[string]string{
		"image": p.bed.Registry() + "/gitlab/quoting:v1.4", "service-name": hostile, "args": "--application=a b\n--native=false",
	})
	if err != nil {
		t.Fatal(err)
	}
	p.write(t, repo+"/.gitlab-ci.yml", "include: [{local: templates/wrap.yml, inputs: "+string(inputs)+"}]\n")
	p.gitlabCI(t, repo, "")
	p.checkQuoting(t, p.bed.Registry()+"/gitlab/quoting:v1.4-otel")
}

// gitlabPromote is the pipeline of manifests. Its jobs push to a repository that is
// where GitLab's would be, and notes the options that pushing had.
func (p *pipelines) gitlabPromote(t *testing.T) {
	repo, origin := newRepository(t, onGitLab), t.TempDir()
	output(t, "git", "init", "--quiet", "--bare", origin)
	output(t, "git", "-C", origin, "config", "receive.advertisePushOptions", "true")
	hook := "#!/bin/sh\nenv | grep '^GIT_PUSH_OPTION_[0-9]' | sort > options\n"
	if err := os.WriteFile(filepath.Join(origin, "hooks/pre-receive"), []byte(hook), 0o755); err != nil {
		t.Fatal(err)
	}
	g := &pipelines{bed: p.bed, w: p.w, tools: p.tools, env: append(slices.Clip(p.env),
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=url."+origin+".insteadOf",
		"GIT_CONFIG_VALUE_0=https://oauth2:secret@gitlab.com/gitlab/cart.git")}
	g.copyGitLab(t, repo)
	g.write(t, filepath.Join(repo, ".gitlab-ci.yml"), "include: [{local: templates/promote.yml}]\n")
	g.writeManifests(t, repo, "gitlab-gitops")
	check := func(want string) {
		t.Helper()
		if out, _ := g.tryGitLab(t, repo, "", "CI_PIPELINE_SOURCE=merge_request_event"); !strings.Contains(out, want) {
			t.Errorf("the check of merge requests, want %s:\n%s", want, out)
		}
	}
	check("FAIL 4")
	ref := g.bed.Registry() + "/gitlab-gitops/cart:1.4-otel"
	for _, environment := range []struct{ name, job, source string }{
		{"staging", "", "schedule"},
		{"production", "imgwrap promote production", "web"},
	} {
		g.gitlabCI(t, repo, environment.job, "CI_PIPELINE_SOURCE="+environment.source, "PROMOTE_TOKEN=secret")
		want := "GIT_PUSH_OPTION_0=merge_request.create\nGIT_PUSH_OPTION_1=merge_request.target=main\n" +
			"GIT_PUSH_OPTION_2=merge_request.title=Pin wrapped images in " + environment.name + "\n"
		if got := string(readFile(t, origin+"/options")); got != want {
			t.Errorf("pushed with\n%s\nwant\n%s", got, want)
		}
		output(t, "git", "-C", repo, "pull", "--quiet", "--ff-only", origin, "promote-"+environment.name)
		g.checkPinned(t, repo, environment.name, ref)
	}
	check("PASS")
}

// gitlabBulk is the pipeline that wraps many images.
func (p *pipelines) gitlabBulk(t *testing.T) {
	repo := newRepository(t, onGitLab)
	p.writeList(t, filepath.Join(repo, "images.yaml"), "gitlab-fleet")
	p.copyGitLab(t, repo)
	p.write(t, filepath.Join(repo, ".gitlab-ci.yml"), "include: [{local: templates/bulk.yml}]\n")
	p.gitlabCI(t, repo, "")
	var summary string
	for _, file := range glob(t, repo+"/.gitlab-ci-local/artifacts/*/imgwrap-*.md") {
		summary += string(readFile(t, file))
	}
	p.checkFleet(t, "gitlab-fleet", summary, glob(t, repo+"/.gitlab-ci-local/artifacts/*/imgwrap-*.xml"))
}

func (p *pipelines) copyGitLab(t *testing.T, dir string) {
	t.Helper()
	if err := os.CopyFS(dir, os.DirFS(ciDocs+"/gitlab")); err != nil {
		t.Fatal(err)
	}
}

// onGitLab is the origin of a repository there.
const onGitLab = "https://gitlab.com/gitlab/cart.git"

// gitlabCI runs a pipeline that succeeds.
func (p *pipelines) gitlabCI(t *testing.T, repo, job string, variables ...string) string {
	t.Helper()
	out, err := p.tryGitLab(t, repo, job, variables...)
	if err != nil {
		t.Fatalf("gitlab-ci-local: %v\n%s", err, out)
	}
	return out
}

// tryGitLab runs the pipeline of a repository's files as they are, or one job of it,
// and returns what jobs printed.
func (p *pipelines) tryGitLab(t *testing.T, repo, job string, variables ...string) (string, error) {
	t.Helper()
	commit(t, repo)
	args := []string{"gitlab-ci-local", "--force-shell-executor", "--shell-isolation"}
	variables = append(variables, "CI_REGISTRY="+p.bed.Registry(), "CI_REGISTRY_IMAGE="+p.bed.Registry()+"/gitlab/cart",
		"CI_REGISTRY_USER=ci", "CI_REGISTRY_PASSWORD=secret", "IMGWRAP_CACHE_DIR="+p.w.cache)
	var names []string
	for _, v := range variables {
		name, _, _ := strings.Cut(v, "=")
		args, names = append(args, "--variable="+v), append(names, name)
	}
	args = append(args, "--ignore-predefined-vars="+strings.Join(names, ","))
	if job != "" {
		args = append(args, job)
	}
	out, err := p.command(t, repo, args...).CombinedOutput()
	return string(out), err
}

// jenkins runs the pipelines of docs/ci/jenkins.
func (p *pipelines) jenkins(t *testing.T) {
	t.Run("wrap", func(t *testing.T) {
		source, err := p.bed.Push(t.Context(), "trixie-flask", "jenkins/cart:1.4")
		if err != nil {
			t.Fatal(err)
		}
		ref := p.bed.Registry() + "/jenkins/cart:1.4-otel"
		out, kept, err := p.runJenkins(t, t.TempDir(), ciDocs+"/jenkins/Jenkinsfile",
			"IMAGE="+p.bed.Registry()+"/jenkins/cart:1.4@"+source.String())
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		p.checkWrapped(t, ref, source, "devel")
		if !strings.Contains(out, "\ndeploying "+ref+"@"+digest(t, image(t, ref)).String()+"\n") {
			t.Errorf("deploy has not got what was wrapped:\n%s", out)
		}
		checkSummary(t, string(readFile(t, kept+"/archive/imgwrap.md")), ref)

		// As a step of a shared library, with what a shell would take apart.
		file := filepath.Join(t.TempDir(), "Jenkinsfile")
		p.write(t, file, `pipeline {
    agent { label 'imgwrap' }
    stages {
        stage('Wrap') {
            steps {
                script {
                    def otel = wrapImage(image: IMAGE, endpoint: "http://it's:4318", tag: '{{.Repository}}:{{.Tag}}-step', args: ['--application=a b'])
                    echo "deploying ${otel.image}@${otel.digest}"
                }
            }
        }
    }
    parameters { string(name: 'IMAGE') }
}
`)
		if out, _, err = p.runJenkins(t, t.TempDir(), file, "IMAGE="+p.bed.Registry()+"/jenkins/cart:1.4"); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		step := image(t, p.bed.Registry()+"/jenkins/cart:1.4-step")
		config, err := step.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://it's:4318", "OTEL_RESOURCE_ATTRIBUTES=application=a%20b"} {
			if !slices.Contains(config.Config.Env, want) {
				t.Errorf("no %s in %q", want, config.Config.Env)
			}
		}
		if !strings.Contains(out, "deploying "+p.bed.Registry()+"/jenkins/cart:1.4-step@"+digest(t, step).String()) {
			t.Errorf("the step returned something else:\n%s", out)
		}
	})
	t.Run("bulk", func(t *testing.T) {
		repo := t.TempDir()
		p.writeList(t, filepath.Join(repo, "images.yaml"), "jenkins-fleet")
		out, kept, err := p.runJenkins(t, repo, ciDocs+"/jenkins/Jenkinsfile.bulk")
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		var summary string
		for _, file := range glob(t, kept+"/archive/report-*.md") {
			summary += string(readFile(t, file))
		}
		p.checkFleet(t, "jenkins-fleet", summary, glob(t, kept+"/junit/report-*.xml"))
	})
	t.Run("promote", func(t *testing.T) {
		repo := t.TempDir()
		p.writeManifests(t, repo, "jenkins-gitops")
		if out, _, err := p.runJenkins(t, repo, ciDocs+"/jenkins/Jenkinsfile.promote", "CHANGE_ID=1"); err == nil || !strings.Contains(out, "exit code 4") {
			t.Errorf("the check of manifests without wrapped images: %v\n%s", err, out)
		}
		for _, args := range [][]string{{"promote", "staging"}, {"promote", "--from=staging", "--to=production"}} {
			cmd := exec.CommandContext(t.Context(), p.w.program, append(args, "--cache-dir="+p.w.cache)...)
			cmd.Dir = repo
			outputOf(t, cmd)
		}
		if out, _, err := p.runJenkins(t, repo, ciDocs+"/jenkins/Jenkinsfile.promote", "CHANGE_ID=1"); err != nil {
			t.Errorf("the check: %v\n%s", err, out)
		}
	})
}

// runJenkins runs a Jenkinsfile with the files of a directory. It returns what steps
// printed, and the directory of what Jenkins would keep.
func (p *pipelines) runJenkins(t *testing.T, checkout, file string, parameters ...string) (out, kept string, err error) {
	t.Helper()
	kept = t.TempDir()
	args := append([]string{"-cp", "/usr/share/java/groovy-all.jar", "groovy.ui.GroovyMain", "../../testdata/jenkins/run.groovy",
		checkout, ciDocs + "/jenkins/vars", file, kept, "credentials.registry-config=" + filepath.Join(kept, "config.json")}, parameters...)
	cmd := exec.CommandContext(t.Context(), "java", args...)
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(p.w.program)+":"+os.Getenv("PATH"), "IMGWRAP_CACHE_DIR="+p.w.cache)
	said, err := cmd.CombinedOutput()
	return string(said), kept, err
}

// write writes a file of a test's own.
func (p *pipelines) write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// newRepository makes a repository of git, with an origin that is not there.
func newRepository(t *testing.T, origin string) string {
	t.Helper()
	dir := t.TempDir()
	output(t, "git", "-C", dir, "init", "--quiet", "--initial-branch=main")
	output(t, "git", "-C", dir, "remote", "add", "origin", origin)
	return dir
}

// commit commits all of a repository's files as they are.
func commit(t *testing.T, dir string) {
	t.Helper()
	output(t, "git", "-C", dir, "add", "--all")
	output(t, "git", "-C", dir, "-c", "user.name=shop", "-c", "user.email=shop@example.com", "commit", "--quiet", "--allow-empty", "--message=files")
}

// pathWithout is the environment's PATH without the directories that have a program.
// One is that of the tests of scripts.
func pathWithout(t *testing.T, program string) string {
	t.Helper()
	return strings.Join(slices.DeleteFunc(filepath.SplitList(os.Getenv("PATH")), func(dir string) bool {
		_, err := os.Stat(filepath.Join(dir, program))
		return err == nil
	}), ":")
}

// installed is the version that go install finds.
const installed = "v1.0.0"

// installEnv is an environment in which go install finds this module, as it is
// here, in a module proxy as its version [installed], and what it requires in the
// module cache. Programs are built with the flags of [testbed.Bed.GoBuild], whose
// results go has kept.
func installEnv(t *testing.T) []string {
	t.Helper()
	const path = "github.com/imgwrap/imgwrap"
	proxy, root := t.TempDir(), "../.."
	dir := filepath.Join(proxy, path, "@v")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	z := zip.NewWriter(&archive)
	for _, part := range []string{"go.mod", "go.sum", "cmd", "image", "layer"} { // those of the Dockerfile
		err := filepath.WalkDir(filepath.Join(root, part), func(file string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || strings.HasSuffix(file, "_test.go") {
				return err
			}
			name, err := filepath.Rel(root, file)
			if err != nil {
				return err
			}
			content, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			f, err := z.Create(path + "@" + installed + "/" + filepath.ToSlash(name))
			if err == nil {
				_, err = f.Write(content)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"list":              []byte(installed + "\n"),
		installed + ".info": []byte(`{"Version": "` + installed + `"}`),
		installed + ".mod":  mod,
		installed + ".zip":  archive.Bytes(),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cache := strings.TrimSpace(output(t, "go", "env", "GOMODCACHE"))
	return []string{
		"GOPROXY=file://" + proxy + ",file://" + filepath.Join(cache, "cache/download"),
		"GOSUMDB=off", "GOTOOLCHAIN=local",
		"GOPATH=" + t.TempDir(), "GOMODCACHE=" + t.TempDir(), "GOCACHE=" + strings.TrimSpace(output(t, "go", "env", "GOCACHE")),
		"GOFLAGS=-trimpath -modcacherw", "CGO_ENABLED=0",
	}
}
