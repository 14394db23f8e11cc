-- For Neovim 0.11 and later: vim.lsp.enable('lsp_charrnn'). On 0.10 plugin/lsp_charrnn.lua starts the server by the same table.

-- The server knows languages by LSP's names: these are the ones that Neovim calls otherwise.
local language_ids = {
  bash = 'shellscript', cs = 'csharp', cuda = 'cuda-cpp', objc = 'objective-c', objcpp = 'objective-cpp', ps1 = 'powershell',
  sh = 'shellscript', zsh = 'shellscript',
}

---@type vim.lsp.Config
return {
  cmd = vim.g.lsp_charrnn_cmd or { 'lsp-charrnn', 'serve' },
  filetypes = {
    'bash', 'c', 'cpp', 'cs', 'cuda', 'd', 'dart', 'elixir', 'erlang', 'fsharp', 'go', 'groovy', 'haskell', 'java', 'javascript',
    'javascriptreact', 'julia', 'kotlin', 'lua', 'nim', 'objc', 'objcpp', 'ocaml', 'perl', 'php', 'ps1', 'python', 'r', 'ruby',
    'rust', 'scala', 'sh', 'solidity', 'sql', 'swift', 'typescript', 'typescriptreact', 'verilog', 'vhdl', 'zig', 'zsh',
  },
  get_language_id = function(_, filetype) return language_ids[filetype] or filetype end,
  root_markers = { -- of the project whose other files are remembered; an earlier one goes before a nearer one
    '.git', '.hg', '.jj', '.svn', 'go.work', 'pyproject.toml', 'setup.py', 'Cargo.toml', 'go.mod', 'package.json', 'pom.xml',
    'build.gradle', 'build.gradle.kts', 'build.sbt', 'CMakeLists.txt', 'meson.build', 'composer.json', 'Gemfile', 'mix.exs',
    'rebar.config', 'dune-project', 'stack.yaml', 'cabal.project', 'Package.swift', 'pubspec.yaml', 'build.zig', 'Project.toml',
  },
  -- The server's settings; an empty Lua table would go out as a list.
  init_options = vim.g.lsp_charrnn_settings or vim.empty_dict(),
  -- Neovim before 0.12 doesn't say that it shows ghost text, for there it is this plugin that does.
  capabilities = vim.tbl_deep_extend('force', vim.lsp.protocol.make_client_capabilities(), {
    textDocument = { inlineCompletion = { dynamicRegistration = false } },
  }),
  on_exit = function(...) require('lsp_charrnn.start').exited(...) end,
}
