package dockerfile

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// Options are what is given to a build besides the Dockerfile.
type Options struct {
	BuildArgs map[string]string
	Platform  string // that is built for, "linux/arm64/v8"; "" for linux/amd64
}

// Base is what a stage is built on in the end.
type Base struct {
	Image    string   // a reference with all variables replaced, "" for scratch
	Platform string   // what --platform asks for, "" if nothing does
	Line     int      // of the FROM that names the image
	Stages   []*Stage // from the one with that FROM to the target
	// Varies says that the image's name depends on the platform that is built
	// for.
	Varies bool
}

// scratch is the name of the base image without anything in it.
const scratch = "scratch"

// Base follows the FROM of a stage through the stages before it. It is an
// *[Error] if a variable in a FROM has no value.
func (f *File) Base(target *Stage, o Options) (Base, error) {
	args, err := f.globalArgs(o)
	if err != nil {
		return Base{}, err
	}
	b := Base{}
	for s := target; ; {
		b.Stages = append([]*Stage{s}, b.Stages...)
		name, err := args.expand(s.From, s.Line, "FROM "+s.From)
		if err != nil {
			return Base{}, err
		}
		if earlier := f.earlier(s, name.Result); earlier != nil {
			s = earlier
			continue
		}
		if s.Platform != "" {
			platform, err := args.expand(s.Platform, s.Line, "FROM --platform="+s.Platform)
			if err != nil {
				return Base{}, err
			}
			if !platform.depends("BUILD", "TARGET") {
				b.Platform = platform.Result
			}
		}
		b.Line, b.Varies = s.Line, name.depends("TARGET")
		if name.Result != scratch {
			b.Image = name.Result
		}
		return b, nil
	}
}

// earlier is the stage before s that a FROM with this name means, nil if it
// means an image.
func (f *File) earlier(s *Stage, name string) *Stage {
	for _, e := range slices.Backward(f.Stages[:s.Index]) {
		if e.Name != "" && e.Name == name {
			return e
		}
	}
	return nil
}

// global are the variables that a FROM may use.
type global struct {
	values  map[string]string
	missing map[string]string // variables without a value, and the ARG that lacks one
	lex     *shell.Lex
}

// expansion is a word in which variables are replaced.
type expansion struct{ shell.ProcessWordResult }

// depends says whether a variable of the platforms went into it.
func (e expansion) depends(prefixes ...string) bool {
	for name := range e.Matched {
		for _, p := range prefixes {
			if _, known := platformArgs(Options{})[name]; known && strings.HasPrefix(name, p) {
				return true
			}
		}
	}
	return false
}

// platformArgs are the variables that BuildKit defines by itself. Which machine
// builds is not known: it is taken to be of the platform that is built for.
func platformArgs(o Options) map[string]string {
	platform := o.Platform
	if platform == "" {
		platform = "linux/amd64"
	}
	parts := append(strings.SplitN(platform, "/", 3), "", "")
	args := map[string]string{"TARGETSTAGE": "default"}
	for _, side := range []string{"BUILD", "TARGET"} {
		args[side+"PLATFORM"], args[side+"OS"], args[side+"ARCH"], args[side+"VARIANT"] = platform, parts[0], parts[1], parts[2]
		args[side+"OSVERSION"] = ""
	}
	return args
}

// globalArgs are what the ARG before the first FROM set.
func (f *File) globalArgs(o Options) (*global, error) {
	g := &global{platformArgs(o), map[string]string{}, shell.NewLex(f.escape)}
	for name := range g.values {
		if v, ok := o.BuildArgs[name]; ok {
			g.values[name] = v
		}
	}
	for _, i := range f.args {
		parsed, err := i.parse()
		if err != nil {
			return nil, at(i.node.StartLine, err)
		}
		for _, arg := range parsed.(*instructions.ArgCommand).Args {
			given, ok := o.BuildArgs[arg.Key]
			switch {
			case ok:
				g.set(arg.Key, given)
			case arg.Value == nil:
				if _, ok := g.values[arg.Key]; !ok {
					g.missing[arg.Key] = arg.Key
				}
			default:
				value, lacks, err := g.try(*arg.Value)
				if err != nil {
					return nil, at(i.node.StartLine, err)
				}
				if lacks != "" {
					g.missing[arg.Key] = lacks
					delete(g.values, arg.Key)
					continue
				}
				g.set(arg.Key, value.Result)
			}
		}
	}
	return g, nil
}

func (g *global) set(name, value string) {
	g.values[name] = value
	delete(g.missing, name)
}

// try replaces variables, or names the ARG that lacks a value.
func (g *global) try(word string) (e expansion, lacks string, err error) {
	result, err := g.lex.ProcessWordWithMatches(word, variables(g.values))
	if err != nil {
		return expansion{}, "", err
	}
	for _, name := range slices.Sorted(maps.Keys(result.Unmatched)) {
		matters, err := g.matters(word, name, result.Result)
		if err != nil {
			return expansion{}, "", err
		}
		if matters {
			lacks = name
			if root, ok := g.missing[name]; ok {
				lacks = root
			}
			break
		}
	}
	return expansion{result}, lacks, nil
}

// matters says whether a word is incomplete without the variable: it would be
// part of it, and nothing is given in its place.
func (g *global) matters(word, name, without string) (bool, error) {
	values := maps.Clone(g.values)
	values[name] = "\x00"
	result, err := g.lex.ProcessWordWithMatches(word, variables(values))
	if err != nil || result.Result == without {
		return false, err
	}
	quoted := regexp.QuoteMeta(name)
	substituted := regexp.MustCompile(`\$\{` + quoted + `:?[-+]`)
	rest := substituted.ReplaceAllString(word, "")
	return regexp.MustCompile(`\$(\{` + quoted + `\W|` + quoted + `(\W|$))`).MatchString(rest), nil
}

// expand replaces the variables of a FROM.
func (g *global) expand(word string, line int, from string) (expansion, error) {
	e, lacks, err := g.try(word)
	if err != nil {
		return expansion{}, at(line, err)
	}
	if lacks != "" {
		return expansion{}, &Error{line, fmt.Sprintf("%s: ARG %s has no value", from, lacks), fmt.Sprintf("give it with --build-arg %s=VALUE", lacks)}
	}
	if e.Result == "" {
		return expansion{}, &Error{line, from + " is empty", ""}
	}
	return e, nil
}

// variables is a map as BuildKit's shell wants it.
type variables map[string]string

func (v variables) Get(name string) (string, bool) { value, ok := v[name]; return value, ok }
func (v variables) Keys() []string                 { return slices.Sorted(maps.Keys(v)) }
