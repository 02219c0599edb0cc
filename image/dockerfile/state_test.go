package dockerfile

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
)

// pythonBase is like the official image.
var pythonBase = &Config{
	Env: []string{"PATH=/usr/local/bin:/usr/bin", "LANG=C.UTF-8"}, Cmd: []string{"python3"},
}

// stateOf is the state of a stage.
func stateOf(t *testing.T, src, target string, base *Config, o Options) (*State, error) {
	t.Helper()
	f, err := Parse([]byte(src))
	if err != nil {
		return nil, err
	}
	s, err := f.Target(target)
	if err != nil {
		return nil, err
	}
	b, err := f.Base(s, o)
	if err != nil {
		return nil, err
	}
	return f.State(b, base, o)
}

func TestState(t *testing.T) {
	entry := &Config{Entrypoint: []string{"/entry"}, Cmd: []string{"serve"}, User: "1000", WorkingDir: "/srv", Shell: []string{"/bin/ash", "-c"}}
	for _, tt := range []struct {
		name, src, target string
		base              *Config
		options           Options
		entrypoint, cmd   []string
		cmdOwn            bool
		user, dir         string
		env               string // one of the lines of ENV
		unknown           string
		warning           string
	}{
		{name: "nothing", src: "FROM p", base: pythonBase, cmd: []string{"python3"}},
		{name: "the base image has all", src: "FROM e", base: entry, entrypoint: []string{"/entry"}, cmd: []string{"serve"}, user: "1000", dir: "/srv"},
		{name: "CMD of the stage", src: "FROM p\nCMD [\"a\", \"b\"]", base: pythonBase, cmd: []string{"a", "b"}, cmdOwn: true},
		{name: "the last CMD", src: "FROM p\nCMD one\nCMD [\"two\"]", base: pythonBase, cmd: []string{"two"}, cmdOwn: true},
		{name: "shell form", src: "FROM p\nCMD a  b \\\n  c", base: pythonBase, cmd: []string{"/bin/sh", "-c", "a  b   c"}, cmdOwn: true},
		{name: "ENTRYPOINT takes away what is inherited", src: "FROM e\nENTRYPOINT [\"x\"]", base: entry, entrypoint: []string{"x"}, user: "1000", dir: "/srv"},
		{name: "and not what is the stage's own", src: "FROM e\nCMD [\"y\"]\nENTRYPOINT [\"x\"]", base: entry, entrypoint: []string{"x"}, cmd: []string{"y"}, cmdOwn: true, user: "1000", dir: "/srv"},
		{name: "an earlier stage's CMD is inherited", src: "FROM p AS a\nCMD [\"y\"]\nFROM a\nENTRYPOINT [\"x\"]", base: pythonBase, entrypoint: []string{"x"}},
		{name: "reset", src: "FROM e\nENTRYPOINT []\nCMD []", base: entry, cmdOwn: true, user: "1000", dir: "/srv"},
		{name: "the base image's shell", src: "FROM e\nCMD a", base: entry, entrypoint: []string{"/entry"}, cmd: []string{"/bin/ash", "-c", "a"}, cmdOwn: true, user: "1000", dir: "/srv"},
		{name: "SHELL is inherited", src: "FROM p AS a\nSHELL [\"bash\", \"-c\"]\nFROM a AS b\nFROM b\nENTRYPOINT a $B", base: pythonBase, entrypoint: []string{"bash", "-c", "a $B"}},
		{name: "SHELL comes too late", src: "FROM p\nCMD a\nSHELL [\"bash\", \"-c\"]", base: pythonBase, cmd: []string{"/bin/sh", "-c", "a"}, cmdOwn: true},
		{
			name: "JSON that is none", src: "FROM p\nCMD ['a', 'b']", base: pythonBase, cmd: []string{"/bin/sh", "-c", "['a', 'b']"}, cmdOwn: true,
			warning: "line 2: CMD ['a', 'b'] is no JSON",
		},
		{name: "a target in the middle", src: "FROM p AS Web\nCMD [\"a\"]\nFROM p\nCMD [\"b\"]", target: "wEB", base: pythonBase, cmd: []string{"a"}, cmdOwn: true},
		{name: "the last stage of a name", src: "FROM p AS a\nCMD [\"1\"]\nFROM p AS a\nCMD [\"2\"]\nFROM a", base: pythonBase, cmd: []string{"2"}},
		{name: "a stage hides an image", src: "FROM p AS p\nCMD [\"1\"]\nFROM p", base: pythonBase, cmd: []string{"1"}},
		{name: "USER and WORKDIR", src: "FROM e\nARG UID=5\nENV HOME=/h\nUSER $UID:${GID:-6}\nWORKDIR $HOME\nWORKDIR a/../b", base: entry, entrypoint: []string{"/entry"}, cmd: []string{"serve"}, user: "5:6", dir: "/h/b"},
		{name: "a relative WORKDIR", src: "FROM e\nWORKDIR app", base: entry, entrypoint: []string{"/entry"}, cmd: []string{"serve"}, user: "1000", dir: "/srv/app"},
		{name: "ENV of the base image", src: "FROM p\nENV PATH=/venv/bin:$PATH", base: pythonBase, cmd: []string{"python3"}, env: "PATH=/venv/bin:/usr/local/bin:/usr/bin"},
		{name: "ENV in its old form", src: "FROM p\nENV A b  c", base: pythonBase, cmd: []string{"python3"}, env: "A=b  c"},
		{name: "ENV uses what was there before", src: "FROM p\nENV A=1\nENV A=2 B=$A", base: pythonBase, cmd: []string{"python3"}, env: "B=1"},
		{name: "ENV with quotes", src: "FROM p\nENV A='$LANG' B=\"$LANG\\$\"", base: pythonBase, cmd: []string{"python3"}, env: "B=C.UTF-8$"},
		{name: "ARG is no ENV", src: "FROM p\nARG A=1\nENV B=$A", base: pythonBase, cmd: []string{"python3"}, env: "B=1"},
		{name: "ARG is given", src: "FROM p\nARG A=1\nENV B=$A", base: pythonBase, options: Options{BuildArgs: map[string]string{"A": "2"}}, cmd: []string{"python3"}, env: "B=2"},
		{name: "ARG of the start", src: "ARG A=1\nFROM p\nARG A\nENV B=$A", base: pythonBase, cmd: []string{"python3"}, env: "B=1"},
		{name: "ARG of the start is not there unasked", src: "ARG A=1\nFROM p\nENV B=x$A", base: pythonBase, cmd: []string{"python3"}, env: "B=x"},
		{name: "ARG of an earlier stage", src: "FROM p AS a\nARG A=1\nFROM a\nENV B=$A", base: pythonBase, cmd: []string{"python3"}, env: "B=1"},
		{name: "the platform", src: "FROM p\nARG TARGETARCH\nENV B=$TARGETARCH", base: pythonBase, options: Options{Platform: "linux/arm64"}, cmd: []string{"python3"}, env: "B=arm64"},
		{name: "scratch", src: "FROM scratch\nENV A=$PATH", env: "A=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		{
			name: "ONBUILD of the base image", src: "FROM o\nEXPOSE 1", base: &Config{OnBuild: []string{"RUN x", "ENTRYPOINT [\"on\"]", "CMD a"}, Shell: []string{"s"}},
			entrypoint: []string{"on"}, cmd: []string{"s", "a"}, cmdOwn: true,
		},
		{name: "ONBUILD of an earlier stage", src: "FROM p AS a\nONBUILD CMD [\"on\"]\nFROM a AS b\nFROM b", base: pythonBase, cmd: []string{"on"}},
		{name: "ONBUILD comes before the stage's own", src: "FROM p AS a\nONBUILD CMD [\"on\"]\nFROM a\nCMD [\"own\"]", base: pythonBase, cmd: []string{"own"}, cmdOwn: true},
		{name: "ONBUILD of the target is for others", src: "FROM p\nONBUILD CMD [\"on\"]", base: pythonBase, cmd: []string{"python3"}},
		{name: "an unknown base image", src: "FROM x", unknown: "CMD ENTRYPOINT ENV SHELL USER WORKDIR"},
		{
			name: "what is known nevertheless", src: "FROM x\nENV A=$B\nUSER a\nWORKDIR sub\nENTRYPOINT b", entrypoint: []string{"/bin/sh", "-c", "b"}, user: "a",
			unknown: "ENV SHELL WORKDIR", env: "A=$B", warning: "taken to be /bin/sh",
		},
		{
			name: "variables of an unknown base image", src: "FROM x\nARG N=1\nUSER $N:${G}\nWORKDIR /srv/$D", user: "1:${G}",
			unknown: "CMD ENTRYPOINT ENV SHELL USER WORKDIR",
		},
		{name: "and what follows them", src: "FROM x\nARG N=1\nUSER ${G}\nWORKDIR $D\nUSER $N\nWORKDIR /a", user: "1", dir: "/a", unknown: "CMD ENTRYPOINT ENV SHELL"},
		{name: "CMD alone", src: "FROM x\nCMD [\"a\"]", cmd: []string{"a"}, cmdOwn: true, unknown: "ENTRYPOINT ENV SHELL USER WORKDIR"},
		{
			name: "blocks do not count", base: pythonBase, cmd: []string{"own"}, cmdOwn: true,
			src: "FROM p AS a\nCMD [\"own\"]\n# imgwrap:begin\nENV A=1\nENTRYPOINT [\"x\"]\n# imgwrap:end\n",
		},
		{name: "a newer syntax", src: "# syntax=x/y:2\nFROM p\nNEWER a\nRUN --newer=1 b\nCMD [\"c\"]", base: pythonBase, cmd: []string{"c"}, cmdOwn: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := stateOf(t, tt.src, tt.target, tt.base, tt.options)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(s.Entrypoint, tt.entrypoint) || !slices.Equal(s.Cmd, tt.cmd) || s.CmdOwn != tt.cmdOwn {
				t.Errorf("ENTRYPOINT %q, CMD %q, own %v; want %q, %q, %v", s.Entrypoint, s.Cmd, s.CmdOwn, tt.entrypoint, tt.cmd, tt.cmdOwn)
			}
			if s.User != tt.user || s.WorkingDir != tt.dir {
				t.Errorf("USER %q, WORKDIR %q; want %q, %q", s.User, s.WorkingDir, tt.user, tt.dir)
			}
			if tt.env != "" && !slices.Contains(s.Env, tt.env) {
				t.Errorf("ENV is %q, without %q", s.Env, tt.env)
			}
			if got := strings.Join(slices.Sorted(maps.Keys(s.Unknown)), " "); got != tt.unknown {
				t.Errorf("unknown are %s, want %s", got, tt.unknown)
			}
			if got := strings.Join(s.Warnings, "; "); (got == "") != (tt.warning == "") || !strings.Contains(got, tt.warning) {
				t.Errorf("warnings: %q, want %q", got, tt.warning)
			}
		})
	}
}

func TestBase(t *testing.T) {
	for _, tt := range []struct {
		name, src, target string
		options           Options
		image, platform   string
		stages            int
		varies            bool
	}{
		{name: "plain", src: "FROM p:1", image: "p:1", stages: 1},
		{name: "scratch", src: "FROM scratch", stages: 1},
		{name: "through stages", src: "FROM p:1 AS a\nFROM q\nFROM a AS b\nFROM b", image: "p:1", stages: 3},
		{name: "a stage by its name's case", src: "FROM p:1 AS A\nFROM a", image: "p:1", stages: 2},
		{name: "an image by another case", src: "FROM p:1 AS a\nFROM A", image: "A", stages: 1},
		{name: "the stage itself is none", src: "FROM p AS p", image: "p", stages: 1},
		{name: "a default", src: "ARG V=3.11\nFROM p:${V}-slim", image: "p:3.11-slim", stages: 1},
		{name: "given", src: "ARG V=3.11\nFROM p:$V", options: Options{BuildArgs: map[string]string{"V": "4"}}, image: "p:4", stages: 1},
		{name: "a default of a default", src: "ARG V=1\nARG B=p:$V\nFROM $B", image: "p:1", stages: 1},
		{name: "a fallback", src: "ARG B\nFROM ${B:-p:1}", image: "p:1", stages: 1},
		{name: "a fallback that is empty", src: "ARG S\nFROM p${S:-}", image: "p", stages: 1},
		{name: "a fallback that needs none", src: "ARG A=p:1\nARG B\nFROM ${A:-$B}", image: "p:1", stages: 1},
		{name: "an alternative", src: "ARG A\nFROM p${A:+-x}", image: "p", stages: 1},
		{name: "a stage by an ARG", src: "ARG S=a\nFROM p AS a\nFROM $S", image: "p", stages: 2},
		{name: "the platform", src: "FROM p-$TARGETARCH", options: Options{Platform: "linux/arm64/v8"}, image: "p-arm64", stages: 1, varies: true},
		{name: "the default platform", src: "FROM p-${TARGETOS}", image: "p-linux", stages: 1, varies: true},
		{name: "--platform of the build", src: "FROM --platform=$BUILDPLATFORM p", image: "p", stages: 1},
		{name: "--platform", src: "ARG A=arm64\nFROM --platform=linux/$A p", image: "p", platform: "linux/arm64", stages: 1},
		{name: "escape", src: "# escape=`\nARG V=1\nFROM p:`\n$V", image: "p:1", stages: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := Parse([]byte(tt.src))
			if err != nil {
				t.Fatal(err)
			}
			s, err := f.Target(tt.target)
			if err != nil {
				t.Fatal(err)
			}
			b, err := f.Base(s, tt.options)
			if err != nil {
				t.Fatal(err)
			}
			if b.Image != tt.image || b.Platform != tt.platform || len(b.Stages) != tt.stages || b.Varies != tt.varies {
				t.Errorf("got image %q, platform %q, %d stages, varies %v", b.Image, b.Platform, len(b.Stages), b.Varies)
			}
			if b.Stages[len(b.Stages)-1] != s {
				t.Error("the last stage is not the target")
			}
		})
	}
}

func TestErrors(t *testing.T) {
	begin, end := beginLine+"\n", endMark+"\n"
	for _, tt := range []struct{ name, src, want string }{
		{"no file", "", "line 1: file with no instructions"},
		{"comments", "# a\n\n# b\n", "line 3: file with no instructions"},
		{"no FROM", "ARG A=1\n", "there is no FROM in it"},
		{"before FROM", "ARG A\nRUN x\nFROM p\n", "line 2: RUN comes before the first FROM"},
		{"no instruction", "FROM p\nCOPPY a b\n", "line 2: unknown instruction: COPPY (did you mean COPY?)"},
		{"no JSON of strings", "FROM p\nCMD [1]\n", "line 2: when using JSON array syntax"},
		{"here-document without end", "FROM p\n\nRUN <<EOF\nx\n", "line 3: unterminated heredoc"},
		{"ENTRYPOINT with a here-document", "FROM p\nENTRYPOINT <<EOF\nx\nEOF\n", "line 3: unknown instruction: x"},
		{"a newer syntax changes nothing about FROM", "# syntax=a\nFROM p AS\n", "line 2: FROM requires either one or three arguments"},
		{"line too long", "FROM p\nENV A=" + strings.Repeat("x", 70000) + "\n", "line 1: dockerfile line greater than max allowed size"},
		{"ARG without value", "ARG B\nFROM $B\n", "line 2: FROM $B: ARG B has no value"},
		{"nobody knows the ARG", "FROM p:${V}\n", "line 1: FROM p:${V}: ARG V has no value"},
		{"ARG by way of another", "ARG V\nARG B=p:$V\nFROM $B\n", "line 3: FROM $B: ARG V has no value"},
		{"platform without value", "ARG P\nFROM --platform=$P p\n", "line 2: FROM --platform=$P: ARG P has no value"},
		{"ARG that is wanted", "FROM ${B?given}\n", "line 1: failed to process"},
		{"empty", "ARG B=\nFROM ${B}\n", "line 2: FROM ${B} is empty"},
		{"variables", "FROM p\nENV A=${B\n", "line 2: failed to process"},
		{"no end", "FROM p\n" + begin + "ENV A=1\n", "line 2: imgwrap:begin without a imgwrap:end behind it"},
		{"no end before the next stage", "FROM p\n" + begin + "ENV A=1\nFROM q\n" + end, "line 2: imgwrap:begin without a"},
		{"no beginning", "FROM p\n" + end, "line 2: imgwrap:end without a"},
		{"twice begun", "FROM p\n" + begin + begin + end, "line 2: imgwrap:begin without a"},
		{"inside of an instruction", "FROM p\nRUN a \\\n" + begin + "ENV A=1\n" + end, "line 3: a mark of imgwrap's block is inside of the RUN of line 2"},
		{"what was cut is gone", "FROM p\n" + begin + cutMark + "?\n" + end, "line 3: what was taken off"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := stateOf(t, tt.src, "", pythonBase, Options{})
			if err == nil {
				t.Fatal("no error")
			}
			if !strings.HasPrefix(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q, want %q", err, tt.want)
			}
			if !errors.As(err, new(*Error)) {
				t.Errorf("it is a %T", err)
			}
		})
	}
	f, err := Parse([]byte("FROM p AS a\nFROM p\n"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Target("b")
	var none *NoStageError
	if !errors.As(err, &none) || none.Hint() != "there is a" {
		t.Errorf("%v", err)
	}
}

func TestBlocks(t *testing.T) {
	write := func(src, target string, b Block) string {
		t.Helper()
		f, err := Parse([]byte(src))
		if err != nil {
			t.Fatal(err)
		}
		s, err := f.Target(target)
		if err != nil {
			t.Fatal(err)
		}
		out, err := f.Write(s, b)
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	undo := func(src, target string) string {
		t.Helper()
		f, err := Parse([]byte(src))
		if err != nil {
			t.Fatal(err)
		}
		var s *Stage
		if target != "" {
			if s, err = f.Target(target); err != nil {
				t.Fatal(err)
			}
		}
		return string(f.Undo(s))
	}
	one, two := Block{Cmd: []string{"1"}}, Block{Cmd: []string{"2"}}
	text := func(n string) string { return beginLine + "\nCMD [\"" + n + "\"]\n" + endMark + "\n" }
	const src = "FROM p AS a\n# about a\n\nFROM q\nCMD x\n# last\n"

	for _, tt := range []struct{ name, got, want string }{
		{"what follows belongs to the next stage", write(src, "a", one), "FROM p AS a\n\n" + text("1") + "# about a\n\nFROM q\nCMD x\n# last\n"},
		{"the last stage", write(src, "", one), "FROM p AS a\n# about a\n\nFROM q\nCMD x\n\n" + text("1") + "# last\n"},
		{"one in each stage", write(write(src, "", one), "a", two), "FROM p AS a\n\n" + text("2") + "# about a\n\nFROM q\nCMD x\n\n" + text("1") + "# last\n"},
		{"undo of one", undo(write(write(src, "", one), "a", two), "a"), write(src, "", one)},
		{"undo of all", undo(write(write(src, "", one), "a", two), ""), src},
		{"in place", write("FROM p\n# moved by hand\n\n"+text("1")+"# end\n", "", two), "FROM p\n# moved by hand\n\n" + text("2") + "# end\n"},
		{"not at the end any more", write("FROM p\n\n"+text("1")+"CMD y\n", "", two), "FROM p\nCMD y\n\n" + text("2")},
		{"several become one", write("FROM p\n\n"+text("1")+"\n"+text("1")+"\n", "", two), "FROM p\n\n" + text("2") + "\n"},
		{"without the empty line", undo("FROM p\n"+text("1")+"CMD y\n", ""), "FROM p\nCMD y\n"},
		{"nothing to undo", undo(src, ""), src},
		{"a continuation at the end", write("FROM p\nCMD x \\  \n\n# c\n", "", one), "FROM p\nCMD x \n\n" + strings.Replace(text("1"), "\n", "\n"+cutMark+"\"\\\\  \"\n", 1) + "\n# c\n"},
		{"and back", undo(write("FROM p\nCMD x \\  \n\n# c\n", "", one), ""), "FROM p\nCMD x \\  \n\n# c\n"},
		{"and with another block", undo(write(write("FROM p\nCMD x \\", "", one), "", two), ""), "FROM p\nCMD x \\"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s:\n%s\nwant\n%s", tt.name, tt.got, tt.want)
		}
	}

	f, err := Parse([]byte("FROM p\nCMD x \\\n\\\n"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(f.Stages[0], one); err == nil || !strings.HasPrefix(err.Error(), "line 2: the instruction has no end") {
		t.Errorf("two continuations at the end: %v", err)
	}
	if _, err := f.Write(f.Stages[0], Block{Env: []Variable{{Name: "A", Value: "a\nb"}}}); err == nil {
		t.Error("a line break in a value is written")
	}
}
